-- Jobs by their ids, live or finished, in one statement: never torn.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: one row per known id, columns as store.reading.Row
SELECT found.* FROM unnest($1::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT j.id, j.job_type, CASE WHEN j.worker_id IS NULL THEN 'pending' ELSE 'running' END AS status, j.queue,
           j.priority, j.attempt, j.failures, j.crashes, j.claim_no, j.worker_id,
           CASE WHEN j.worker_id IS NULL THEN j.run_at END AS run_at, j.created_at, j.claimed_at,
           j.claimed_at AS started_at, NULL::timestamptz AS finished_at, j.tags, j.config::text, NULL::text AS result,
           (SELECT a.error::text FROM /*schema.*/attempts a
            WHERE a.job_id = j.id AND j.failures > 0 AND a.error IS NOT NULL
            ORDER BY a.claim_no DESC LIMIT 1) AS error
    FROM /*schema.*/jobs j WHERE j.id = wanted.id
    UNION ALL
    SELECT f.id, f.job_type, f.status, f.queue, f.priority, f.attempt, f.failures, f.crashes, f.claim_no, f.worker_id,
           NULL, f.created_at, f.started_at, f.started_at, f.finished_at, f.tags, f.config::text, f.result::text,
           f.error::text
    FROM /*schema.*/finished_jobs f WHERE f.id = wanted.id AND f.finished_at >= $2::timestamptz
) AS found
