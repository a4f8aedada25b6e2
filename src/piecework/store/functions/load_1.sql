-- Jobs by their ids, live or finished, in one statement: never torn.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: one row per known id, columns as store.reading.Row
CREATE OR REPLACE FUNCTION /*schema.*/load_1(p_ids uuid[], p_since timestamptz) RETURNS TABLE (
    id uuid, job_type text, status text, queue text, priority smallint, attempt integer, failures integer, crashes integer,
    claim_no integer, worker_id uuid, run_at timestamptz, created_at timestamptz, claimed_at timestamptz,
    started_at timestamptz, finished_at timestamptz, tags text[], config text, result text, error text, key text,
    concurrency_key text, parked boolean, state text, done double precision, note text, reported_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT found.* FROM unnest(p_ids) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT j.id, j.job_type, CASE WHEN j.worker_id IS NULL THEN 'pending' ELSE 'running' END AS status, j.queue,
               j.priority, j.attempt, j.failures, j.crashes, j.claim_no, j.worker_id,
               CASE WHEN j.worker_id IS NULL
                    THEN least(greatest(j.run_at, timestamptz '0001-01-02 00:00+00'),
                               timestamptz '9999-12-31 00:00+00') END AS run_at,
               least(greatest(j.created_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00') AS created_at,
               j.claimed_at,
               j.claimed_at AS started_at, NULL::timestamptz AS finished_at, j.tags, j.config::text, p.result::text,
               (SELECT a.error::text FROM attempts a
                WHERE a.job_id = j.id AND j.failures > 0 AND a.error IS NOT NULL
                ORDER BY a.claim_no DESC LIMIT 1) AS error,
               j.key, j.concurrency_key, j.parked,
               -- What an earlier job of the key left is this one's from its start.
               coalesce((SELECT s.state FROM execution_states s WHERE s.job_id = j.id LIMIT 1),
                        (SELECT s.state FROM execution_states s WHERE s.job_type = j.job_type AND s.key = j.key LIMIT 1)
                       )::text AS state,
               p.done, p.note, p.reported_at
        FROM jobs j LEFT JOIN progress p ON p.job_id = j.id WHERE j.id = wanted.id
        UNION ALL
        SELECT f.id, f.job_type, f.status, f.queue, f.priority, f.attempt, f.failures, f.crashes, f.claim_no, f.worker_id,
               NULL, least(greatest(f.created_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00') AS created_at,
               f.started_at, f.started_at, f.finished_at, f.tags, f.config::text, f.result::text,
               f.error::text, f.key, f.concurrency_key, false,
               (SELECT s.state::text FROM execution_states s
                WHERE s.job_type = f.job_type AND s.key = f.key AND s.saved_by = f.id LIMIT 1),
               NULL, NULL, NULL
        FROM finished_jobs f WHERE f.id = wanted.id AND f.finished_at >= p_since
    ) AS found;
END
$$;
