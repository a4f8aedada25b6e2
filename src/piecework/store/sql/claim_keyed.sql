-- Claim due jobs with a concurrency key for a worker.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[], $6 chains integer[],
--          $7 most integer, $8 chained integer, $9 beyond integer (see functions/claim_keyed_1.sql)
-- returns: text (JSON array, see functions/claim_keyed_1.sql), null when none is due
SELECT /*schema.*/claim_keyed_1($1::uuid, $2::text[], $3::text[], $4::smallint[], $5::integer[], $6::integer[],
    $7::integer, $8::integer, $9::integer)
