-- Complete claims, the bulk of what is settled, in one step: all of them, or when one is not as it was claimed, none. Then
-- functions/settle_1.sql takes them apart. It waits for no row, this one at most for a moment.
-- params:  $1 worker uuid, $2 ids uuid[], $3 claim_nos integer[], $4 ages bigint[] (us since the run started), $5 details jsonb
--          (array, as long as the ids, of null or {attempt, result?}; null when all are null), $6 now timestamptz
-- returns: boolean: whether all have landed, each once
CREATE OR REPLACE FUNCTION /*schema.*/settle_completed_1(
    p_worker uuid, p_ids uuid[], p_claim_nos integer[], p_ages bigint[], p_details jsonb, p_now timestamptz
) RETURNS boolean
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_mergejoin = off
SET enable_nestloop = off
SET enable_hashjoin = on
SET plan_cache_mode = force_generic_plan
SET lock_timeout = 20
AS $$
DECLARE
    v_gone bigint;
    v_finished bigint;
BEGIN
    -- The rows go in the order of their ids, by the primary key: the fence is no index condition, so that no plan, whatever
    -- the statistics say, walks the worker's rows. Whoever but the claim has locked a row, wrote what settle_1 has to see.
    WITH gone AS (
        DELETE FROM jobs j
        WHERE j.id = ANY (p_ids) AND coalesce(j.worker_id = p_worker, false) AND (j.xmax = j.xmin OR j.xmax = 0)
        RETURNING *),
    finished AS (
        INSERT INTO finished_jobs (
            id, run_at, created_at, started_at, finished_at, worker_id, claim_no, attempt, failures, crashes, priority,
            concurrency_limit, status, queue, job_type, config, result, concurrency_key, key, timeout, tags, metadata,
            trace_context)
        SELECT g.id, g.run_at, g.created_at, p_now - u.age * interval '1 microsecond', p_now, p_worker, g.claim_no,
               coalesce((u.detail->>'attempt')::integer, g.attempt), g.failures, g.crashes, g.priority, g.concurrency_limit,
               'completed', g.queue, g.job_type, g.config, u.detail->'result', g.concurrency_key, g.key,
               g.timeout, g.tags, g.metadata, g.trace_context
        FROM gone g
        JOIN ROWS FROM (unnest(p_ids, p_claim_nos, p_ages), jsonb_array_elements(p_details)) AS u (id, claim_no, age, detail)
        ON u.id = g.id AND u.claim_no = g.claim_no
        RETURNING 1)
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM finished) INTO v_gone, v_finished;
    IF v_gone = cardinality(p_ids) AND v_finished = v_gone THEN
        RETURN true;
    END IF;
    RAISE lock_not_available;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN false;
END
$$;
