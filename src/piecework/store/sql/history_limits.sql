-- The operators' limits of concurrency keys.
-- returns: queue text, concurrency key text, most integer
SELECT l.queue, l.name, l.max_running FROM /*schema.*/limits l
WHERE l.scope = 'concurrency_key' AND l.max_running IS NOT NULL ORDER BY l.queue, l.name
