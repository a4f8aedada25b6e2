-- How many jobs there are of each kind.
-- returns: queue text, job_type text, status text, count bigint, oldest timestamptz (run_at of the first that is due by the
--          clock that tests may turn)
SELECT queue, job_type, CASE WHEN worker_id IS NULL THEN 'pending' ELSE 'running' END AS status, count(*),
       min(greatest(run_at, timestamptz '0001-01-02 00:00+00')) FILTER (WHERE worker_id IS NULL AND run_at <= coalesce(
           (SELECT c.now FROM /*schema.*/clock c WHERE c.one), clock_timestamp()))
FROM /*schema.*/jobs GROUP BY 1, 2, 3
UNION ALL
SELECT queue, job_type, status, count(*), NULL FROM /*schema.*/finished_jobs GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
