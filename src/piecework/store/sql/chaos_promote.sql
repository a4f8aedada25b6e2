-- Make a standby the primary, and wait until it is.
-- returns: whether it is boolean
SELECT pg_promote()
