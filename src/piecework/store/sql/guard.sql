-- Let the current transaction be committed only if it ends these claims.
-- params:  $1 guard text (JSON, see functions/guard_1.sql)
-- returns: text (JSON array, see functions/guard_1.sql), null when all are held
SELECT /*schema.*/guard_1($1::text)
