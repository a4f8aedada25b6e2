-- What operators say of concurrency keys.
-- returns: name text, queue text (empty: all queues), max_running integer, paused boolean
SELECT l.name, l.queue, l.max_running, l.paused FROM /*schema.*/limits l
WHERE l.scope = 'concurrency_key' ORDER BY l.name COLLATE "C", l.queue COLLATE "C"
