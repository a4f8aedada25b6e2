-- Bring finished jobs back. The delete of the history row decides between two operators. Counters start anew.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: uuid, of each that was brought back
CREATE OR REPLACE FUNCTION /*schema.*/retry_1(p_ids uuid[], p_since timestamptz) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
    WITH back AS (
        DELETE FROM finished_jobs f
        WHERE f.id = ANY (p_ids) AND f.finished_at >= p_since AND f.config IS NOT NULL
          -- What has a key that a live job holds stays as it is.
          AND (f.key IS NULL
               OR (SELECT true FROM jobs j WHERE j.job_type = f.job_type AND j.key = f.key LIMIT 1) IS NULL)
        RETURNING f.*),
    forgotten AS (
        DELETE FROM cancel_requests c USING back b WHERE c.job_id = b.id),
    again AS (
        INSERT INTO jobs (
            id, run_at, created_at, claim_no, priority, concurrency_limit, queue, job_type, config, concurrency_key, key,
            timeout, tags, metadata, trace_context)
        SELECT b.id, coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp()), b.created_at, b.claim_no + 1, b.priority,
               b.concurrency_limit, b.queue, b.job_type, b.config, b.concurrency_key, b.key, b.timeout, b.tags, b.metadata,
               b.trace_context
        FROM back b
        RETURNING id, queue, job_type, priority, concurrency_key),
    hinted AS MATERIALIZED (
        SELECT pg_notify(/*channel*/, lane.hint)
        FROM (SELECT DISTINCT jsonb_build_array(
                  a.queue, a.job_type, a.priority, '[]'::jsonb, a.concurrency_key IS NOT NULL)::text
              FROM again a) AS lane (hint))
    SELECT a.id FROM again a WHERE (SELECT count(*) FROM hinted) >= 0;
END
$$;
