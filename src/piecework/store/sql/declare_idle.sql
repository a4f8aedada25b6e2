-- From now on a spawn into these queues sends a hint.
-- params:  $1 worker uuid, $2 queues text[]
INSERT INTO /*schema.*/idle_workers (worker_id, queues) VALUES ($1::uuid, $2::text[]) ON CONFLICT DO NOTHING
