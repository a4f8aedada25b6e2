-- The workers there are.
-- returns: id text
SELECT w.id::text FROM /*schema.*/workers w ORDER BY w.id
