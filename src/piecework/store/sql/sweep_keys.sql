-- Repair concurrency keys.
-- returns: integer, the number of keys that were looked into
SELECT /*schema.*/sweep_keys_1()
