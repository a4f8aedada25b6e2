-- Find the lanes with claimable jobs.
-- params:  $1 queues text[], $2 job_types text[]
-- returns: text (JSON array, see functions/lanes_1.sql), null when there is none
SELECT /*schema.*/lanes_1($1::text[], $2::text[])
