-- From the commit on a spawn into these queues, of these job types, sends a hint.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[]
INSERT INTO /*schema.*/idle_workers (worker_id, queues, job_types) VALUES ($1::uuid, $2::text[], $3::text[])
ON CONFLICT (worker_id) DO UPDATE SET queues = excluded.queues, job_types = excluded.job_types
