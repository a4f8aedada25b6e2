-- Bring concurrency keys in line after jobs have left them: who does not run holds none, and as many of the parked as there is
-- room for come back into their lanes, the first ones in the order (priority, run_at, id) of all that are due. The caller
-- has locked the rows of the keys, in one order (invariants A and D). A key that had no row then, and has one in other
-- hands now, is left to these.
-- params:  $1 queues text[], $2 keys text[], $3 gone uuid[] (no longer holders, unless they run)
-- returns: text: null, or JSON array of the lanes [queue, job_type, priority] into which jobs came back
CREATE OR REPLACE FUNCTION /*schema.*/free_keys_1(p_queues text[], p_keys text[], p_gone uuid[]) RETURNS text
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
    v_gone uuid[];
    v_lanes jsonb;
BEGIN
    SELECT array_agg(k.queue), array_agg(k.concurrency_key) INTO v_queues, v_keys
    FROM unnest(p_queues, p_keys) AS u (queue, key)
    CROSS JOIN LATERAL (
        SELECT k.queue, k.concurrency_key FROM concurrency_keys k
        WHERE k.queue = u.queue AND k.concurrency_key = u.key FOR NO KEY UPDATE SKIP LOCKED) AS k;
    IF v_keys IS NULL THEN
        RETURN NULL;
    END IF;
    v_gone := ARRAY(
        SELECT u.id FROM unnest(p_gone) AS u (id)
        WHERE (SELECT true FROM jobs j WHERE j.id = u.id AND j.worker_id IS NOT NULL) IS NULL);
    IF cardinality(v_gone) > 0 THEN
        -- Of rows that are there, so that nothing is inserted. No UPDATE ... FROM: see claim_keyed_1.
        INSERT INTO concurrency_keys AS k (queue, concurrency_key)
        SELECT k.queue, k.concurrency_key FROM unnest(v_queues, v_keys) AS u (queue, key)
        CROSS JOIN LATERAL (
            SELECT k.queue, k.concurrency_key, k.running FROM concurrency_keys k
            WHERE k.queue = u.queue AND k.concurrency_key = u.key LIMIT 1) AS k
        WHERE k.running && v_gone
        ON CONFLICT (queue, concurrency_key)
            DO UPDATE SET running = ARRAY(SELECT r FROM unnest(k.running) AS r WHERE r <> ALL (v_gone));
    END IF;

    WITH freed AS (
        UPDATE jobs SET parked = false WHERE ctid = ANY (ARRAY(
            SELECT head.tid
            FROM (SELECT u.queue, u.key FROM unnest(v_queues, v_keys) AS u (queue, key)
                  -- Most keys have nobody waiting.
                  WHERE (SELECT true FROM jobs j
                         WHERE j.queue = u.queue AND j.concurrency_key = u.key AND j.parked LIMIT 1)) AS u
            CROSS JOIN LATERAL (
                SELECT coalesce(
                    CASE WHEN v_limited THEN concurrency_limit_1(u.queue, u.key) END,
                    (SELECT j.concurrency_limit FROM jobs j
                     WHERE j.queue = u.queue AND j.concurrency_key = u.key AND j.worker_id IS NULL AND j.run_at <= v_now
                     ORDER BY j.priority, j.run_at, j.id LIMIT 1), 1)
                    - coalesce((SELECT cardinality(k.running) FROM concurrency_keys k
                                WHERE k.queue = u.queue AND k.concurrency_key = u.key LIMIT 1), 0) AS count) AS room
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid, j.parked FROM jobs j
                WHERE j.queue = u.queue AND j.concurrency_key = u.key AND j.worker_id IS NULL AND j.run_at <= v_now
                ORDER BY j.priority, j.run_at, j.id LIMIT greatest(room.count, 0) FOR UPDATE SKIP LOCKED) AS head
            WHERE head.parked))
        RETURNING queue, job_type, priority)
    SELECT jsonb_agg(DISTINCT jsonb_build_array(f.queue, f.job_type, f.priority)) INTO v_lanes FROM freed f;

    PERFORM drop_unused_keys_1(v_queues, v_keys);
    -- Read after the rows are written (invariant F).
    IF v_lanes IS NOT NULL AND EXISTS (SELECT FROM idle_workers) THEN
        PERFORM pg_notify(/*channel*/, (lane || jsonb_build_array('[]'::jsonb, true))::text)
        FROM jsonb_array_elements(v_lanes) AS lane;
    END IF;
    RETURN v_lanes::text;
END
$$;
