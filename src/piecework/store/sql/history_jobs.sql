-- Every job with its attempts, in the order of the ids. Walks over all of them, in the order of the indexes.
-- returns: text: JSON array of the id, an array of rows [status, job_type, queue, priority, run_at s, created s, claim_no,
--          worker or null, started s or null, ended s or null, attempt, failures, crashes, concurrency_key or null,
--          concurrency_limit or null, key or null], and an array of attempts [claim_no, worker, attempt, move,
--          started s or null, ended s]
SELECT json_build_array(coalesce(r.id, a.job_id), coalesce(r.rows, '[]'), coalesce(a.attempts, '[]'))::text
FROM (
    SELECT j.id, json_agg(json_build_array(
        j.status, j.job_type, j.queue, j.priority,
        date_part('epoch', least(greatest(j.run_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00')),
        date_part('epoch', least(greatest(j.created_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00')),
        j.claim_no, j.worker_id, date_part('epoch', j.started_at), date_part('epoch', j.finished_at), j.attempt, j.failures,
        j.crashes, j.concurrency_key, j.concurrency_limit, j.key)) AS rows
    FROM (
        SELECT l.id, 'live' AS status, l.job_type, l.queue, l.priority, l.run_at, l.created_at, l.claim_no, l.worker_id,
               l.claimed_at AS started_at, NULL::timestamptz AS finished_at, l.attempt, l.failures, l.crashes,
               l.concurrency_key, l.concurrency_limit, l.key
        FROM /*schema.*/jobs l
        UNION ALL
        SELECT f.id, f.status, f.job_type, f.queue, f.priority, f.run_at, f.created_at, f.claim_no, f.worker_id,
               f.started_at, f.finished_at, f.attempt, f.failures, f.crashes, f.concurrency_key, f.concurrency_limit, f.key
        FROM /*schema.*/finished_jobs f) AS j
    GROUP BY j.id) AS r
FULL JOIN (
    SELECT t.job_id, json_agg(json_build_array(
        t.claim_no, t.worker_id, t.attempt, t.move, date_part('epoch', t.started_at), date_part('epoch', t.ended_at))
        ORDER BY t.claim_no, t.ended_at) AS attempts
    FROM /*schema.*/attempts t GROUP BY t.job_id) AS a ON a.job_id = r.id
ORDER BY coalesce(r.id, a.job_id)
