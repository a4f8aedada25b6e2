-- Bring concurrency keys in line after jobs have left them: who does not run holds none, as many of the parked as there is
-- room for come back into their lanes, the first ones in the order (priority, run_at, id) of all that are due, and the row of
-- a key that nobody holds or waits for goes. The caller has locked the rows by statements before, and has not written them:
-- a key that had no row then, and has one in other hands now, is left to these (invariants A and D).
-- params:  $1 rows tid[] (of functions/lock_keys_1.sql), $2 gone uuid[] (no longer holders, unless they run),
--          $3 ended boolean: none of the gone runs, so that they need not be looked for
-- returns: text: null, or JSON array of the lanes [queue, job_type, priority] into which jobs came back
CREATE OR REPLACE FUNCTION /*schema.*/free_keys_1(p_rows tid[], p_gone uuid[], p_ended boolean) RETURNS text
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
    v_queues text[];
    v_keys text[];
    v_running integer[];
    v_lanes jsonb;
BEGIN
    IF p_rows IS NULL THEN
        RETURN NULL;
    END IF;
    IF NOT p_ended THEN
        -- By its id alone: asked for its worker as well, the planner may walk all that run.
        p_gone := ARRAY(
            SELECT u.id FROM unnest(p_gone) AS u (id)
            WHERE (SELECT j.worker_id FROM jobs j WHERE j.id = u.id LIMIT 1) IS NULL);
    END IF;
    -- NOT IN, which is a look-up in a table made once, where <> ALL compares each with each.
    WITH found AS MATERIALIZED (
        SELECT k.ctid AS tid, k.queue, k.concurrency_key, k.running,
               ARRAY(SELECT r FROM unnest(k.running) AS r WHERE r NOT IN (SELECT u FROM unnest(p_gone) AS u)) AS staying,
               (SELECT true FROM jobs j
                WHERE j.queue = k.queue AND j.concurrency_key = k.concurrency_key AND j.parked LIMIT 1) AS waited_for
        FROM concurrency_keys k WHERE k.ctid = ANY (p_rows)),
    dropped AS (
        DELETE FROM concurrency_keys WHERE ctid = ANY (ARRAY(
            SELECT f.tid FROM found f WHERE f.staying = '{}' AND f.waited_for IS NULL))),
    written AS (
        UPDATE concurrency_keys k SET running = f.staying FROM found f
        WHERE k.ctid = f.tid AND f.staying <> f.running AND (f.staying <> '{}' OR f.waited_for))
    SELECT array_agg(f.queue), array_agg(f.concurrency_key), array_agg(cardinality(f.staying))
    INTO v_queues, v_keys, v_running FROM found f WHERE f.waited_for;
    IF v_keys IS NULL THEN
        RETURN NULL;
    END IF;

    WITH freed AS (
        UPDATE jobs SET parked = false WHERE ctid = ANY (ARRAY(
            SELECT head.tid
            FROM unnest(v_queues, v_keys, v_running) AS u (queue, key, running)
            CROSS JOIN LATERAL (
                SELECT coalesce(
                    CASE WHEN v_limited THEN concurrency_limit_1(u.queue, u.key) END,
                    (SELECT j.concurrency_limit FROM jobs j
                     WHERE j.queue = u.queue AND j.concurrency_key = u.key AND j.worker_id IS NULL AND j.run_at <= v_now
                     ORDER BY j.priority, j.run_at, j.id LIMIT 1), 1) - u.running AS count) AS room
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid, j.parked FROM jobs j
                WHERE j.queue = u.queue AND j.concurrency_key = u.key AND j.worker_id IS NULL AND j.run_at <= v_now
                ORDER BY j.priority, j.run_at, j.id LIMIT greatest(room.count, 0) FOR UPDATE SKIP LOCKED) AS head
            WHERE head.parked))
        RETURNING queue, job_type, priority)
    SELECT jsonb_agg(DISTINCT jsonb_build_array(f.queue, f.job_type, f.priority)) INTO v_lanes FROM freed f;

    -- Read after the rows are written (invariant F).
    IF v_lanes IS NOT NULL AND EXISTS (SELECT FROM idle_workers) THEN
        PERFORM pg_notify(/*channel*/, (lane || jsonb_build_array('[]'::jsonb, true))::text)
        FROM jsonb_array_elements(v_lanes) AS lane;
    END IF;
    RETURN v_lanes::text;
END
$$;
