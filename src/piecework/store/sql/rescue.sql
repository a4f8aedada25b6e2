-- Take back the jobs of a dead worker.
-- params:  $1 worker uuid, $2 beat_no bigint, $3 lease interval
-- returns: text (JSON array, see functions/rescue_1.sql), null when the worker lives or is gone
SELECT /*schema.*/rescue_1($1::uuid, $2::bigint, $3::interval)
