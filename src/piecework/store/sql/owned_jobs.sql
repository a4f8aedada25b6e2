-- What a worker owns.
-- params:  $1 worker uuid
-- returns: text (JSON array, see functions/owned_1.sql), null when it owns nothing
SELECT /*schema.*/owned_1($1::uuid)
