-- The newest jobs first, live and finished. Walks back from the newest: over all of them where few are of the queue or type.
-- params:  $1 status text, $2 queue text, $3 job_type text (each null: any), $4 most integer
-- returns: columns as store.reading.Row
SELECT listed.* FROM (
    (SELECT j.id, j.job_type, CASE WHEN j.worker_id IS NULL THEN 'pending' ELSE 'running' END AS status, j.queue,
            j.priority, j.attempt, j.failures, j.crashes, j.claim_no, j.worker_id,
            CASE WHEN j.worker_id IS NULL
                 THEN least(greatest(j.run_at, timestamptz '0001-01-02 00:00+00'),
                            timestamptz '9999-12-31 00:00+00') END AS run_at,
            least(greatest(j.created_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00') AS created_at,
            j.claimed_at,
            j.claimed_at AS started_at, NULL::timestamptz AS finished_at, j.tags, j.config::text,
            (SELECT p.result::text FROM /*schema.*/progress p WHERE p.job_id = j.id) AS result, NULL::text AS error,
            j.key, j.concurrency_key, j.parked,
            coalesce((SELECT s.state FROM /*schema.*/execution_states s WHERE s.job_id = j.id),
                     (SELECT s.state FROM /*schema.*/execution_states s WHERE s.job_type = j.job_type AND s.key = j.key)
                    )::text AS state,
            (SELECT p.done FROM /*schema.*/progress p WHERE p.job_id = j.id) AS done,
            (SELECT p.note FROM /*schema.*/progress p WHERE p.job_id = j.id) AS note,
            (SELECT p.reported_at FROM /*schema.*/progress p WHERE p.job_id = j.id) AS reported_at
     FROM /*schema.*/jobs j
     WHERE ($1::text IS NULL OR ($1 = 'pending' AND j.worker_id IS NULL) OR ($1 = 'running' AND j.worker_id IS NOT NULL))
       AND ($2::text IS NULL OR j.queue = $2) AND ($3::text IS NULL OR j.job_type = $3)
     ORDER BY j.id DESC LIMIT $4::integer)
    UNION ALL
    (SELECT f.id, f.job_type, f.status, f.queue, f.priority, f.attempt, f.failures, f.crashes, f.claim_no, f.worker_id,
            NULL, least(greatest(f.created_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00') AS created_at,
            f.started_at, f.started_at, f.finished_at, f.tags, f.config::text, f.result::text,
            f.error::text, f.key, f.concurrency_key, false,
            (SELECT s.state::text FROM /*schema.*/execution_states s
             WHERE s.job_type = f.job_type AND s.key = f.key AND s.saved_by = f.id),
            NULL, NULL, NULL
     FROM /*schema.*/finished_jobs f
     WHERE ($1::text IS NULL OR f.status = $1) AND ($2::text IS NULL OR f.queue = $2)
       AND ($3::text IS NULL OR f.job_type = $3)
     ORDER BY f.id DESC LIMIT $4::integer)
) AS listed
ORDER BY listed.id DESC LIMIT $4::integer
