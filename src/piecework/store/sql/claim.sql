-- Claim due jobs for a worker.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[], $6 most integer
-- returns: text (JSON array, see functions/claim_1.sql), null when none is due and none was passed over
SELECT /*schema.*/claim_1($1::uuid, $2::text[], $3::text[], $4::smallint[], $5::integer[], $6::integer, NULL, NULL)
