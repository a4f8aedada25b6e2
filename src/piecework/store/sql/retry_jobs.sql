-- Bring finished jobs back. The delete of the history row decides between two operators. Counters start anew.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: id text, of those brought back
WITH back AS (
    DELETE FROM /*schema.*/finished_jobs f
    WHERE f.id = ANY ($1::uuid[]) AND f.finished_at >= $2::timestamptz AND f.config IS NOT NULL
    RETURNING f.*),
again AS (
    INSERT INTO /*schema.*/jobs (
        id, run_at, created_at, claim_no, priority, queue, job_type, config, concurrency_key, key, timeout, tags, metadata,
        trace_context)
    SELECT b.id, clock_timestamp(), b.created_at, b.claim_no + 1, b.priority, b.queue, b.job_type, b.config,
           b.concurrency_key, b.key, b.timeout, b.tags, b.metadata, b.trace_context
    FROM back b
    RETURNING id, queue, job_type, priority)
SELECT a.id::text, pg_notify(/*channel*/, jsonb_build_array(a.queue, a.job_type, a.priority)::text)::text FROM again a
