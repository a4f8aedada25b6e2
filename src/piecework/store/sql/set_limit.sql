-- Limit or pause a concurrency key.
-- params:  $1 limit text (JSON object, see functions/set_limit_1.sql)
-- returns: nothing
SELECT /*schema.*/set_limit_1($1::text)
