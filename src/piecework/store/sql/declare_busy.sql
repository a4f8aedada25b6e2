-- This worker needs no hints: it looks by itself.
-- params:  $1 worker uuid
DELETE FROM /*schema.*/idle_workers WHERE worker_id = $1::uuid
