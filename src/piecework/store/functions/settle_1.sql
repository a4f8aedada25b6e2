-- Write how claims ended, many in one call, each fenced by (id, claim_no, worker_id) (invariant C).
-- params:  $1 worker uuid, $2 ids uuid[], $3 claim_nos integer[], $4 moves text[], $5 ages bigint[] (us since the run started,
--          null: never ran), $6 details text: JSON array, as long as the ids, of null or {attempt, failures, crashes,
--          delay? us, run_at? us, result?, error?}; null when all are null
-- returns: text: null when all landed, else JSON array of [position from 1, 'landed before' | 'locked' | 'lost']
CREATE OR REPLACE FUNCTION /*schema.*/settle_1(
    p_worker uuid, p_ids uuid[], p_claim_nos integer[], p_moves text[], p_ages bigint[], p_details text
) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_landed integer[];
    v_gone bigint;
    v_kept bigint;
BEGIN
    -- The lock step takes rows in one order and skips what an open transaction of a user holds. A claimed row is written
    -- by its settle and by rescue alone, so what is read here is what is locked.
    WITH held AS MATERIALIZED (
        SELECT j.ctid AS tid, u.position, u.move, v_now - u.age * interval '1 microsecond' AS started_at,
               (u.detail->>'attempt')::integer AS next_attempt, (u.detail->>'failures')::integer AS next_failures,
               (u.detail->>'crashes')::integer AS next_crashes,
               CASE WHEN u.detail ? 'run_at'
                    THEN timestamptz 'epoch' + (u.detail->>'run_at')::bigint * interval '1 microsecond'
                    WHEN u.detail ? 'delay' THEN v_now + (u.detail->>'delay')::bigint * interval '1 microsecond'
                    ELSE j.run_at END AS next_run_at,
               u.detail->'result' AS result, u.detail->'error' AS error, j.*
        FROM ROWS FROM (unnest(p_ids, p_claim_nos, p_moves, p_ages), jsonb_array_elements(p_details::jsonb))
                 WITH ORDINALITY AS u (id, claim_no, move, age, detail, position)
        JOIN jobs j ON j.id = u.id
        WHERE j.claim_no = u.claim_no AND j.worker_id = p_worker
        ORDER BY j.id FOR UPDATE OF j SKIP LOCKED),
    gone AS (
        DELETE FROM jobs
        WHERE ctid = ANY (ARRAY(SELECT h.tid FROM held h WHERE h.move IN ('complete', 'fail', 'cancel'))) RETURNING 1),
    finished AS (
        INSERT INTO finished_jobs (
            id, run_at, created_at, started_at, finished_at, worker_id, claim_no, attempt, failures, crashes, priority,
            status, queue, job_type, config, result, error, concurrency_key, key, timeout, tags, metadata, trace_context)
        SELECT h.id, h.run_at, h.created_at, h.started_at, v_now, p_worker, h.claim_no,
               coalesce(h.next_attempt, h.attempt),
               CASE h.move WHEN 'complete' THEN h.failures ELSE coalesce(h.next_failures, h.failures) END,
               h.crashes, h.priority,
               CASE h.move WHEN 'complete' THEN 'completed' WHEN 'fail' THEN 'errored' ELSE 'cancelled' END,
               h.queue, h.job_type, h.config, h.result, h.error, h.concurrency_key, h.key, h.timeout, h.tags, h.metadata,
               h.trace_context
        FROM held h WHERE h.move IN ('complete', 'fail', 'cancel') RETURNING 1),
    again AS (
        UPDATE jobs SET worker_id = NULL, claimed_at = NULL, parked = false, run_at = h.next_run_at,
            attempt = h.next_attempt, failures = h.next_failures, crashes = h.next_crashes
        FROM held h
        WHERE jobs.ctid = h.tid AND h.move IN ('retry', 'reschedule', 'release') RETURNING 1),
    attempted AS (
        INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, started_at, ended_at, error, next_run_at)
        SELECT h.id, h.claim_no, p_worker, CASE h.move WHEN 'fail' THEN h.next_attempt ELSE h.attempt END, h.move,
               h.started_at, v_now, h.error,
               CASE WHEN h.move <> 'fail' THEN h.next_run_at END
        FROM held h WHERE h.move IN ('retry', 'reschedule', 'release', 'fail'))
    SELECT array_agg(h.position::integer), (SELECT count(*) FROM gone) + (SELECT count(*) FROM again), count(*)
    INTO v_landed, v_gone, v_kept FROM held h;

    IF v_gone <> v_kept THEN
        RAISE serialization_failure USING MESSAGE = 'a claimed job was changed by neither settle nor rescue';
    END IF;
    -- What is handed back unrun is somebody else's to run at once.
    IF 'release' = ANY (p_moves) THEN
        PERFORM pg_notify(/*channel*/, lane.hint)
        FROM (SELECT DISTINCT jsonb_build_array(j.queue, j.job_type, j.priority)::text
              FROM unnest(p_ids, p_moves) AS u (id, move) JOIN jobs j ON j.id = u.id
              WHERE u.move = 'release' AND j.worker_id IS NULL) AS lane (hint);
    END IF;
    IF cardinality(v_landed) = cardinality(p_ids) THEN
        RETURN NULL;
    END IF;
    -- A statement of its own sees what was committed meanwhile: the same settle sent twice is told so.
    RETURN (
        SELECT json_agg(json_build_array(u.position, CASE
            WHEN EXISTS (SELECT FROM jobs j
                         WHERE j.id = u.id AND j.claim_no = u.claim_no AND j.worker_id = p_worker) THEN 'locked'
            WHEN EXISTS (SELECT FROM finished_jobs f
                         WHERE f.id = u.id AND f.claim_no = u.claim_no AND f.worker_id = p_worker) THEN 'landed before'
            WHEN EXISTS (SELECT FROM attempts a
                         WHERE a.job_id = u.id AND a.claim_no = u.claim_no AND a.worker_id = p_worker
                           AND a.move <> 'rescue') THEN 'landed before'
            ELSE 'lost' END))::text
        FROM unnest(p_ids, p_claim_nos) WITH ORDINALITY AS u (id, claim_no, position)
        WHERE u.position <> ALL (coalesce(v_landed, '{}')));
END
$$;
