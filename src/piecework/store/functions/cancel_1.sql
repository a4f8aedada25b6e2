-- Cancel jobs that no worker holds. A running job's row is written by settle and rescue alone, so it is left.
-- params:  $1 ids uuid[]
-- returns: uuid, of each that was cancelled
CREATE OR REPLACE FUNCTION /*schema.*/cancel_1(p_ids uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT found.*
        FROM (SELECT DISTINCT u.id FROM unnest(p_ids) AS u (id) ORDER BY u.id) AS wanted
        CROSS JOIN LATERAL (
            SELECT j.ctid AS tid, j.* FROM jobs j WHERE j.id = wanted.id AND j.worker_id IS NULL
            FOR UPDATE SKIP LOCKED) AS found),
    gone AS (
        DELETE FROM jobs WHERE ctid = ANY (ARRAY(SELECT h.tid FROM held h)) RETURNING id)
    INSERT INTO finished_jobs (
        id, run_at, created_at, finished_at, claim_no, attempt, failures, crashes, priority, status, queue, job_type,
        config, concurrency_key, key, timeout, tags, metadata, trace_context)
    -- A row that changed after the snapshot is locked and not deleted, so it is not cancelled.
    SELECT h.id, h.run_at, h.created_at, clock_timestamp(), h.claim_no, h.attempt, h.failures, h.crashes, h.priority,
           'cancelled', h.queue, h.job_type, h.config, h.concurrency_key, h.key, h.timeout, h.tags, h.metadata,
           h.trace_context
    FROM held h JOIN gone g ON g.id = h.id
    RETURNING id;
END
$$;
