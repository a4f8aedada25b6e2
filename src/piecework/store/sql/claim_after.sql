-- Claim due jobs of one lane for a worker, from a place in the lane's order on.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[] (these four of
--          one element), $6 most integer, $7 after_run_at bigint (us), $8 after_id uuid
-- returns: text (JSON array, see functions/claim_1.sql), null when none is due and none was passed over
SELECT /*schema.*/claim_1($1::uuid, $2::text[], $3::text[], $4::smallint[], $5::integer[], $6::integer, $7::bigint, $8::uuid)
