-- What workers hold, longest first.
-- params:  $1 most integer
-- returns: id uuid, job_type text, queue text, attempt integer, worker_id uuid, host text, pid integer, claimed_at timestamptz,
--          seconds since the claim double precision, timeout seconds double precision
SELECT j.id, j.job_type, j.queue, j.attempt, j.worker_id, w.host, w.pid, j.claimed_at,
       date_part('epoch', clock_timestamp() - j.claimed_at), coalesce(
           date_part('epoch', j.timeout), (w.settings->'timeouts'->>j.job_type)::double precision)
FROM /*schema.*/jobs j LEFT JOIN /*schema.*/workers w ON w.id = j.worker_id
WHERE j.worker_id IS NOT NULL ORDER BY j.claimed_at, j.id LIMIT $1::integer
