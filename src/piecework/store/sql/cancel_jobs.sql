-- Cancel jobs that no worker holds. A running job's row is written by settle and rescue alone, so it is left.
-- params:  $1 ids uuid[]
-- returns: id text, of those cancelled
WITH held AS MATERIALIZED (
    SELECT j.ctid AS tid, j.* FROM /*schema.*/jobs j
    WHERE j.id = ANY ($1::uuid[]) AND j.worker_id IS NULL ORDER BY j.id FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM /*schema.*/jobs WHERE ctid = ANY (ARRAY(SELECT h.tid FROM held h)) RETURNING id)
INSERT INTO /*schema.*/finished_jobs (
    id, run_at, created_at, finished_at, claim_no, attempt, failures, crashes, priority, status, queue, job_type, config,
    concurrency_key, key, timeout, tags, metadata, trace_context)
SELECT h.id, h.run_at, h.created_at, clock_timestamp(), h.claim_no, h.attempt, h.failures, h.crashes, h.priority,
       'cancelled', h.queue, h.job_type, h.config, h.concurrency_key, h.key, h.timeout, h.tags, h.metadata, h.trace_context
FROM held h JOIN gone g ON g.id = h.id
RETURNING id::text
