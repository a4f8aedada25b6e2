-- Cancel jobs. One that no worker holds ends here. A running job's row is written by settle and rescue alone, so of that it
-- is requested: a hint goes to its worker, whose beats would find the request as well, and whatever gives the job back
-- before that (a retry, a reschedule, a release, a rescue) calls this again, when nobody holds it.
-- params:  $1 ids uuid[], $2 joined boolean (in a transaction that others do not wait for: concurrency keys are left alone,
--          whoever holds their locks hands them on, else the sweep does)
-- returns: id uuid, answer text 'cancelled' | 'requested', of each that has not ended
CREATE OR REPLACE FUNCTION /*schema.*/cancel_1(p_ids uuid[], p_joined boolean) RETURNS TABLE (id uuid, answer text)
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET lock_timeout = '1s'
AS $$
#variable_conflict use_column
DECLARE
    v_locked uuid[];
    v_held uuid[] := '{}';
    v_id uuid;
    v_queues text[];
    v_keys text[];
    v_rows tid[];
BEGIN
    -- All that follows is decided under the locks of the rows: a settle that gives a job back and a request for it see
    -- each other, in whatever order they come. LIMIT 1 keeps a look-up by id one, whatever the statistics say.
    v_locked := ARRAY(
        SELECT found.id FROM (SELECT DISTINCT u.id FROM unnest(p_ids) AS u (id) ORDER BY u.id) AS wanted
        CROSS JOIN LATERAL (SELECT j.id FROM jobs j WHERE j.id = wanted.id FOR UPDATE SKIP LOCKED) AS found);
    -- A claim or a settle holds a row for milliseconds. A transaction that holds one for longer is waited for once, and
    -- then not: of such jobs it is requested as they stand, and the next beat of whoever runs them sees to it. A job that
    -- ended meanwhile is not found, also if somebody has brought it back since.
    FOR v_id IN
        SELECT found.id
        FROM (SELECT DISTINCT u.id FROM unnest(p_ids) AS u (id) WHERE u.id <> ALL (v_locked) ORDER BY u.id) AS wanted
        CROSS JOIN LATERAL (SELECT j.id FROM jobs j WHERE j.id = wanted.id LIMIT 1) AS found
    LOOP
        BEGIN
            IF cardinality(v_held) > 0 THEN
                v_held := array_append(v_held, v_id);
            ELSE
                PERFORM FROM jobs j WHERE j.id = v_id FOR UPDATE;
                IF FOUND THEN
                    v_locked := array_append(v_locked, v_id);
                END IF;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            v_held := array_append(v_held, v_id);
        END;
    END LOOP;

    -- Keys after jobs, and nowhere else so: whoever holds a key waits for no job's row, and a row is waited for above. Where
    -- jobs are parked behind a key, the key has a row. The size of a file is known at once; to find that there is no row, the
    -- planner would walk over all that are gone and that an open transaction keeps.
    IF NOT p_joined AND pg_relation_size('concurrency_keys') > 0 THEN
        SELECT array_agg(key.queue), array_agg(key.concurrency_key) INTO v_queues, v_keys
        FROM (SELECT DISTINCT j.queue, j.concurrency_key FROM unnest(v_locked) AS u (id)
              CROSS JOIN LATERAL (
                  SELECT j.queue, j.concurrency_key FROM jobs j WHERE j.id = u.id AND j.worker_id IS NULL LIMIT 1) AS j
              WHERE j.concurrency_key IS NOT NULL) AS key;
        IF v_keys IS NOT NULL THEN
            v_rows := lock_keys_1(v_queues, v_keys);
        END IF;
    END IF;

    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT found.*
        FROM (SELECT u.id FROM unnest(v_locked) AS u (id) ORDER BY u.id) AS wanted
        CROSS JOIN LATERAL (
            SELECT j.ctid AS tid, j.* FROM jobs j WHERE j.id = wanted.id LIMIT 1) AS found
        WHERE found.worker_id IS NULL),
    gone AS (
        DELETE FROM jobs WHERE ctid = ANY (ARRAY(SELECT h.tid FROM held h))),
    finished AS (
        INSERT INTO finished_jobs (
            id, run_at, created_at, finished_at, claim_no, attempt, failures, crashes, priority, concurrency_limit, status,
            queue, job_type, config, result, concurrency_key, key, timeout, tags, metadata, trace_context)
        SELECT h.id, h.run_at, h.created_at, clock_timestamp(), h.claim_no, h.attempt, h.failures, h.crashes, h.priority,
               h.concurrency_limit, 'cancelled', h.queue, h.job_type, h.config,
               (SELECT p.result FROM progress p WHERE p.job_id = h.id), h.concurrency_key, h.key, h.timeout, h.tags,
               h.metadata, h.trace_context
        FROM held h),
    unreported AS (
        DELETE FROM progress WHERE job_id = ANY (ARRAY(SELECT h.id FROM held h))),
    forgotten AS (
        DELETE FROM execution_states WHERE job_id = ANY (ARRAY(SELECT h.id FROM held h)))
    SELECT h.id, 'cancelled' FROM held h;

    PERFORM free_keys_1(v_rows, '{}', true);

    IF pg_relation_size('cancel_requests') > 0 THEN
        DELETE FROM cancel_requests c
        WHERE c.job_id = ANY (p_ids) AND (SELECT true FROM jobs j WHERE j.id = c.job_id) IS NULL;
    END IF;

    RETURN QUERY
    WITH running AS MATERIALIZED (
        SELECT found.id, found.claim_no, found.worker_id
        FROM (SELECT u.id FROM unnest(v_locked || v_held) AS u (id) ORDER BY u.id) AS wanted
        CROSS JOIN LATERAL (SELECT j.id, j.claim_no, j.worker_id FROM jobs j WHERE j.id = wanted.id LIMIT 1) AS found),
    -- A request that stands is left alone: the open transaction that ends its job has deleted it.
    asked AS (
        INSERT INTO cancel_requests AS c (job_id, claim_no)
        SELECT r.id, r.claim_no FROM running r
        WHERE (SELECT true FROM cancel_requests c WHERE c.job_id = r.id AND c.claim_no = r.claim_no) IS NULL
        ORDER BY r.id
        ON CONFLICT (job_id) DO UPDATE SET claim_no = excluded.claim_no),
    -- A payload has at most 8000 bytes.
    told AS MATERIALIZED (
        SELECT pg_notify(/*channel*/, jsonb_build_object(
                   'worker', run.worker_id, 'cancel', jsonb_agg(jsonb_build_array(run.id, run.claim_no)))::text)
        FROM (SELECT r.*, row_number() OVER (PARTITION BY r.worker_id ORDER BY r.id) / 100 AS part
              FROM running r WHERE r.worker_id IS NOT NULL) AS run
        GROUP BY run.worker_id, run.part)
    SELECT r.id, 'requested' FROM running r WHERE (SELECT count(*) FROM told) >= 0;
END
$$;
