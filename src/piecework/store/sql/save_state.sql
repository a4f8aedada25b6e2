-- Save the execution state of a run.
-- params:  $1 save text (JSON, see functions/save_state_1.sql)
-- returns: text (JSON array, see functions/save_state_1.sql), null when it is saved
SELECT /*schema.*/save_state_1($1::text)
