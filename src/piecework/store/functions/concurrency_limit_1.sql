-- What operators say of how many jobs of a concurrency key may run at once: by its name, or by the longest beginning of it
-- that is followed by an asterisk, of its queue or of all queues.
-- params:  $1 queue text, $2 key text
-- returns: integer; null: they say nothing of it
CREATE OR REPLACE FUNCTION /*schema.*/concurrency_limit_1(p_queue text, p_key text) RETURNS integer
LANGUAGE sql STABLE
SET search_path = /*schema*/, pg_temp
AS $$
    SELECT CASE WHEN l.paused THEN 0 ELSE l.max_running END FROM limits l
    WHERE l.scope = 'concurrency_key' AND l.queue IN (p_queue, '')
      AND (l.name = p_key OR (right(l.name, 1) = '*' AND starts_with(p_key, left(l.name, -1))))
    ORDER BY l.name = p_key DESC, length(l.name) DESC, l.queue DESC LIMIT 1
$$;
