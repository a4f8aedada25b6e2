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
    -- Due times go by the clock that tests may turn; the history never does.
    v_due timestamptz := coalesce((SELECT c.now FROM clock c WHERE c.one), v_now);
    v_details jsonb := p_details;
    v_landed integer[];
    v_completed integer[];
    v_left text[] := ARRAY['complete', 'fail', 'cancel'];
    v_ended integer[];
    v_gone bigint;
    v_job record;
    v_held record;
BEGIN
    -- A job that is to be cancelled ends so, unless it completed. Whether there is anything in a table is asked of the size of
    -- its file: to find that there is no row, one would walk over all that are gone and that an open transaction keeps.
    IF 'fail' = ANY (p_moves) AND pg_relation_size('cancel_requests') > 0 THEN
        p_moves := ARRAY(
            SELECT CASE WHEN u.move = 'fail' AND (SELECT true FROM cancel_requests c WHERE c.job_id = u.id)
                        THEN 'cancel' ELSE u.move END
            FROM unnest(p_ids, p_moves) WITH ORDINALITY AS u (id, move, position) ORDER BY u.position);
    END IF;

    v_completed := array_positions(p_moves, 'complete');
    IF cardinality(v_completed) > 0 AND settle_completed_1(
        p_worker, ARRAY(SELECT p_ids[n] FROM unnest(v_completed) AS n),
        ARRAY(SELECT p_claim_nos[n] FROM unnest(v_completed) AS n), ARRAY(SELECT p_ages[n] FROM unnest(v_completed) AS n),
        CASE WHEN v_details IS NOT NULL THEN (SELECT jsonb_agg(v_details->(n - 1)) FROM unnest(v_completed) AS n) END, v_now)
    THEN
        v_landed := v_completed;
        v_left := ARRAY['fail', 'cancel'];
    END IF;

    -- Jobs that end, but for those. The lock step takes rows in the order of their ids and skips what an open transaction of
    -- a user holds. Each id is looked up in a subquery of its own, and the fence is no index condition, as there. A job that
    -- is named twice ends once.
    IF p_moves && v_left THEN
        WITH held AS MATERIALIZED (
            SELECT j.*, u.position, u.move, v_now - u.age * interval '1 microsecond' AS started_at,
                   u.detail->'result' AS result, u.detail->'error' AS error,
                   (u.detail->>'attempt')::integer AS last_attempt, (u.detail->>'failures')::integer AS last_failures
            FROM (
                SELECT DISTINCT ON (u.id) u.* FROM ROWS FROM (
                    unnest(p_ids, p_claim_nos, p_moves, p_ages), jsonb_array_elements(v_details))
                    WITH ORDINALITY AS u (id, claim_no, move, age, detail, position)
                WHERE u.move = ANY (v_left) ORDER BY u.id, u.position) AS u
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid, j.* FROM jobs j
                WHERE j.id = u.id AND j.claim_no = u.claim_no AND coalesce(j.worker_id = p_worker, false)
                FOR UPDATE SKIP LOCKED) AS j),
        gone AS (
            DELETE FROM jobs WHERE ctid = ANY (ARRAY(SELECT h.tid FROM held h)) RETURNING 1),
        finished AS (
            INSERT INTO finished_jobs (
                id, run_at, created_at, started_at, finished_at, worker_id, claim_no, attempt, failures, crashes, priority,
                concurrency_limit, status, queue, job_type, config, result, error, concurrency_key, key, timeout, tags,
                metadata, trace_context)
            SELECT h.id, h.run_at, h.created_at, h.started_at, v_now, p_worker, h.claim_no,
                   coalesce(h.last_attempt, h.attempt),
                   CASE h.move WHEN 'complete' THEN h.failures ELSE coalesce(h.last_failures, h.failures) END,
                   h.crashes, h.priority, h.concurrency_limit,
                   CASE h.move WHEN 'complete' THEN 'completed' WHEN 'fail' THEN 'errored' ELSE 'cancelled' END,
                   h.queue, h.job_type, h.config,
                   h.result,
                   CASE h.move WHEN 'fail' THEN h.error END,
                   h.concurrency_key, h.key, h.timeout, h.tags, h.metadata, h.trace_context
            FROM held h),
        attempted AS (
            INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, started_at, ended_at, error)
            SELECT h.id, h.claim_no, p_worker, coalesce(h.last_attempt, h.attempt), h.move, h.started_at, v_now, h.error
            FROM held h WHERE h.move <> 'complete')
        SELECT array_agg(h.position::integer), (SELECT count(*) FROM gone) INTO v_ended, v_gone FROM held h;

        -- A claimed row is written by its settle and by rescue alone, so what was read is what was locked and deleted.
        IF v_gone <> coalesce(cardinality(v_ended), 0) THEN
            RAISE serialization_failure USING MESSAGE = 'a claimed job was changed by neither settle nor rescue';
        END IF;
        v_landed := v_landed || v_ended;
    END IF;

    IF v_landed IS NOT NULL THEN
        -- What belongs to the job goes with it; what is saved under its key stays. Statements of their own, after the one
        -- that locked the rows: whoever reports or saves holds the row while he does, so all of it is seen.
        IF pg_relation_size('progress') > 0 THEN
            FOR v_held IN
                DELETE FROM progress WHERE job_id = ANY (ARRAY(SELECT p_ids[n] FROM unnest(v_landed) AS n))
                RETURNING job_id, result
            LOOP
                UPDATE finished_jobs SET result = v_held.result
                WHERE id = v_held.job_id AND finished_at = v_now AND result IS NULL AND v_held.result IS NOT NULL;
            END LOOP;
        END IF;
        IF pg_relation_size('execution_states') > 0 THEN
            DELETE FROM execution_states WHERE job_id = ANY (ARRAY(SELECT p_ids[n] FROM unnest(v_landed) AS n));
        END IF;
    END IF;

    -- Jobs that go on, one by one: their new values differ, and this is the path of failures, not of the bulk.
    IF p_moves && ARRAY['retry', 'reschedule', 'release'] THEN
        FOR v_job IN
            SELECT u.* FROM ROWS FROM (unnest(p_ids, p_claim_nos, p_moves, p_ages), jsonb_array_elements(v_details))
                WITH ORDINALITY AS u (id, claim_no, move, age, detail, position)
            WHERE u.move IN ('retry', 'reschedule', 'release') ORDER BY u.id
        LOOP
            SELECT j.ctid AS tid, j.queue, j.job_type, j.priority, j.attempt, j.concurrency_key IS NOT NULL AS keyed,
                   CASE WHEN v_job.detail ? 'run_at'
                        THEN timestamptz 'epoch' + (v_job.detail->>'run_at')::bigint * interval '1 microsecond'
                        WHEN v_job.detail ? 'delay'
                        THEN v_due + (v_job.detail->>'delay')::bigint * interval '1 microsecond'
                        ELSE j.run_at END AS next_run_at
            INTO v_held FROM jobs j
            WHERE j.id = v_job.id AND j.claim_no = v_job.claim_no AND coalesce(j.worker_id = p_worker, false)
            FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            UPDATE jobs SET worker_id = NULL, claimed_at = NULL, parked = false, run_at = v_held.next_run_at,
                attempt = (v_job.detail->>'attempt')::integer, failures = (v_job.detail->>'failures')::integer,
                crashes = (v_job.detail->>'crashes')::integer
            WHERE ctid = v_held.tid;
            INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, started_at, ended_at, error, next_run_at)
            VALUES (v_job.id, v_job.claim_no, p_worker, v_held.attempt, v_job.move,
                    v_now - v_job.age * interval '1 microsecond', v_now, v_job.detail->'error', v_held.next_run_at);
            v_landed := v_landed || v_job.position::integer;
            -- Read after the row is written: who declares itself idle from now on looks until this transaction has ended.
            -- Equal notices of a transaction are sent once.
            IF EXISTS (SELECT FROM idle_workers i WHERE i.ctid >= '(0,0)') THEN
                PERFORM pg_notify(/*channel*/, jsonb_build_array(
                    v_held.queue, v_held.job_type, v_held.priority, '[]'::jsonb, v_held.keyed)::text);
            END IF;
        END LOOP;
    END IF;

    -- Whoever requests a cancellation holds the row of the job: what was requested before the rows were locked is seen by
    -- this statement, and what comes later finds them as they are now.
    IF v_landed IS NOT NULL AND pg_relation_size('cancel_requests') > 0 THEN
        PERFORM FROM cancel_1(ARRAY(
            SELECT c.job_id FROM cancel_requests c
            WHERE c.job_id = ANY (ARRAY(SELECT p_ids[n] FROM unnest(v_landed) AS n)) ORDER BY c.job_id), true);
    END IF;

    IF cardinality(v_landed) = cardinality(p_ids) THEN
        RETURN NULL;
    END IF;
    -- A statement of its own sees what was committed meanwhile: the same settle sent twice is told so. No EXISTS: the
    -- planner may answer it from a hash of the whole history.
    RETURN (
        SELECT json_agg(json_build_array(u.position, CASE
            WHEN (SELECT true FROM jobs j WHERE j.id = u.id AND j.claim_no = u.claim_no
                  AND coalesce(j.worker_id = p_worker, false) LIMIT 1) THEN 'locked'
            WHEN (SELECT true FROM finished_jobs f WHERE f.id = u.id AND f.claim_no = u.claim_no
                  AND f.worker_id = p_worker LIMIT 1) THEN 'landed before'
            WHEN (SELECT true FROM attempts a WHERE a.job_id = u.id AND a.claim_no = u.claim_no
                  AND a.worker_id = p_worker AND a.move <> 'rescue' LIMIT 1) THEN 'landed before'
            ELSE 'lost' END))::text
        FROM unnest(p_ids, p_claim_nos) WITH ORDINALITY AS u (id, claim_no, position)
        WHERE u.position <> ALL (coalesce(v_landed, '{}')));
END
$$;
