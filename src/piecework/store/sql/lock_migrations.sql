-- One migrator at a time, until its transaction ends.
-- params:  $1 schema text
-- returns: void
SELECT pg_advisory_xact_lock(hashtextextended('piecework.migrate.' || $1::text, 0))
