-- What there is to know of why one job does not run. Due times go by the clock that tests may turn.
-- params:  $1 id uuid
-- returns: text (JSON object, see model/explanation.py, JobFacts); no row when there is no such job
SELECT json_build_object(
    'id', j.id, 'status', CASE WHEN j.worker_id IS NULL THEN 'pending' ELSE 'running' END, 'job_type', j.job_type,
    'queue', j.queue, 'attempt', j.attempt, 'at', CASE WHEN j.worker_id IS NULL
        THEN least(greatest(j.run_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00') ELSE j.claimed_at END,
    'due_in', date_part('epoch', least(greatest(j.run_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00')
        - coalesce((SELECT c.now FROM /*schema.*/clock c WHERE c.one), clock_timestamp())),
    'manual_clock', EXISTS (SELECT FROM /*schema.*/clock c WHERE c.one),
    'concurrency_key', j.concurrency_key, 'parked', j.parked,
    'limit', CASE WHEN j.concurrency_key IS NOT NULL
             THEN coalesce(/*schema.*/concurrency_limit_1(j.queue, j.concurrency_key), j.concurrency_limit, 1) END,
    'holders', coalesce((SELECT to_json(k.running) FROM /*schema.*/concurrency_keys k
                         WHERE k.queue = j.queue AND k.concurrency_key = j.concurrency_key), '[]'),
    'before', (SELECT count(*) FROM (
                   SELECT FROM /*schema.*/jobs s
                   WHERE s.queue = j.queue AND s.concurrency_key = j.concurrency_key AND s.worker_id IS NULL
                     AND s.run_at <= coalesce((SELECT c.now FROM /*schema.*/clock c WHERE c.one), clock_timestamp())
                     AND (s.priority, s.run_at, s.id) < (j.priority, j.run_at, j.id) LIMIT 1000) AS sibling),
    'cancel_requested', EXISTS (SELECT FROM /*schema.*/cancel_requests c WHERE c.job_id = j.id),
    'worker_id', j.worker_id,
    'worker', (SELECT w.host || ' pid ' || w.pid FROM /*schema.*/workers w WHERE w.id = j.worker_id),
    'workers', (SELECT count(*) FROM /*schema.*/workers w WHERE w.given_up_at IS NULL AND NOT w.draining
                AND w.beat_at > clock_timestamp() - w.lease),
    'workers_of_queue', (SELECT count(*) FROM /*schema.*/workers w WHERE w.given_up_at IS NULL AND NOT w.draining
                         AND w.beat_at > clock_timestamp() - w.lease AND j.queue = ANY (w.queues)),
    'workers_of_both', (SELECT count(*) FROM /*schema.*/workers w WHERE w.given_up_at IS NULL AND NOT w.draining
                        AND w.beat_at > clock_timestamp() - w.lease AND j.queue = ANY (w.queues)
                        AND j.job_type = ANY (w.job_types)))::text
FROM /*schema.*/jobs j WHERE j.id = $1::uuid
UNION ALL
SELECT json_build_object(
    'id', f.id, 'status', f.status, 'job_type', f.job_type, 'queue', f.queue, 'attempt', f.attempt, 'at', f.finished_at,
    'error', CASE WHEN jsonb_typeof(f.error->'type') = 'string' AND jsonb_typeof(f.error->'message') = 'string'
                  THEN jsonb_build_object('type', f.error->'type', 'message', f.error->'message')
                  WHEN f.error IS NOT NULL
                  THEN jsonb_build_object('type', 'unreadable error', 'message', left(f.error::text, 200)) END)::text
FROM /*schema.*/finished_jobs f WHERE f.id = $1::uuid
