-- Say how many jobs of a concurrency key may run at once, or pause it. What is not said stays as it is; a row that says
-- nothing any more goes. Keys in use are handed on at once, as far as there is room now.
-- params:  $1 limit text: {name (a key, or the beginning of keys with an asterisk), queue? (else of all queues),
--          max_running? | null, paused?}
-- returns: nothing
CREATE OR REPLACE FUNCTION /*schema.*/set_limit_1(p_limit text) RETURNS void
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
AS $$
DECLARE
    v_limit jsonb := p_limit::jsonb;
    v_name text := v_limit->>'name';
    v_queue text := coalesce(v_limit->>'queue', '');
    v_queues text[];
    v_keys text[];
BEGIN
    INSERT INTO limits AS l (scope, queue, name, max_running, paused)
    VALUES ('concurrency_key', v_queue, v_name, (v_limit->>'max_running')::integer,
            coalesce((v_limit->>'paused')::boolean, false))
    ON CONFLICT (scope, queue, name) DO UPDATE SET
        max_running = CASE WHEN v_limit ? 'max_running' THEN excluded.max_running ELSE l.max_running END,
        paused = CASE WHEN v_limit ? 'paused' THEN excluded.paused ELSE l.paused END;
    DELETE FROM limits l
    WHERE l.scope = 'concurrency_key' AND l.queue = v_queue AND l.name = v_name
      AND l.max_running IS NULL AND NOT l.paused AND l.settings IS NULL;

    SELECT array_agg(k.queue), array_agg(k.concurrency_key) INTO v_queues, v_keys
    FROM concurrency_keys k
    WHERE v_queue IN (k.queue, '')
      AND (k.concurrency_key = v_name
           OR (right(v_name, 1) = '*' AND starts_with(k.concurrency_key, left(v_name, -1))));
    IF v_keys IS NOT NULL THEN
        PERFORM free_keys_1(lock_keys_1(v_queues, v_keys), '{}', true);
    END IF;
END
$$;
