-- Create jobs in a transaction of their own.
-- params:  $1 jobs text (JSON array, see functions/spawn_1.sql)
-- returns: text (JSON array, see functions/spawn_1.sql), null when all were created
SELECT /*schema.*/spawn_1($1::text)
