-- Repair what a completion in a transaction of the user's, a cancellation in one, or a race has left of concurrency keys:
-- holders that do not run, jobs that are parked while there is room (A2). Keys that are in hand are left for the next time.
-- returns: integer, the number of keys that were looked into
CREATE OR REPLACE FUNCTION /*schema.*/sweep_keys_1() RETURNS integer
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now timestamptz := coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp());
    v_limited boolean := EXISTS (SELECT FROM limits WHERE scope = 'concurrency_key');
    v_key record;
    v_count integer := 0;
BEGIN
    FOR v_key IN
        SELECT k.ctid AS tid, k.running FROM concurrency_keys k
        WHERE k.running = '{}' OR EXISTS (
            SELECT FROM unnest(k.running) AS r
            WHERE (SELECT j.worker_id FROM jobs j WHERE j.id = r LIMIT 1) IS NULL)
           OR (SELECT true FROM jobs j
               WHERE j.queue = k.queue AND j.concurrency_key = k.concurrency_key AND j.parked LIMIT 1)
           AND (SELECT bool_or(head.parked) FROM (
                SELECT j.parked FROM jobs j
                WHERE j.queue = k.queue AND j.concurrency_key = k.concurrency_key AND j.worker_id IS NULL
                  AND j.run_at <= v_now
                ORDER BY j.priority, j.run_at, j.id LIMIT greatest(0, coalesce(
                    CASE WHEN v_limited THEN concurrency_limit_1(k.queue, k.concurrency_key) END,
                    (SELECT j.concurrency_limit FROM jobs j
                     WHERE j.queue = k.queue AND j.concurrency_key = k.concurrency_key AND j.worker_id IS NULL
                       AND j.run_at <= v_now
                     ORDER BY j.priority, j.run_at, j.id LIMIT 1), 1) - cardinality(k.running))) AS head)
        ORDER BY k.queue, k.concurrency_key FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        PERFORM free_keys_1(ARRAY[v_key.tid], v_key.running, false);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END
$$;
