-- Look for work, and at what a worker owns.
-- params:  $1 worker uuid (null: what it owns is not counted), $2 queues text[], $3 job_types text[]
-- returns: text (JSON array, see functions/look_1.sql)
SELECT /*schema.*/look_1($1::uuid, $2::text[], $3::text[])
