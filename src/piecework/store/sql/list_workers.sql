-- The workers of this schema and what each holds.
-- returns: id uuid, host text, pid integer, queues text[], job_types text[], version text, draining boolean, started_at timestamptz,
--          seconds since the last beat double precision, lease seconds double precision, running bigint, idle boolean,
--          stop seconds double precision, exit seconds double precision, counters text
SELECT w.id, w.host, w.pid, w.queues, w.job_types, w.version, w.draining, w.started_at,
       date_part('epoch', clock_timestamp() - w.beat_at), date_part('epoch', w.lease),
       (SELECT count(*) FROM /*schema.*/jobs j WHERE j.worker_id = w.id),
       EXISTS (SELECT FROM /*schema.*/idle_workers i WHERE i.worker_id = w.id),
       date_part('epoch', w.stop), date_part('epoch', w.exit), w.counters::text
FROM /*schema.*/workers w WHERE w.given_up_at IS NULL ORDER BY w.started_at, w.id
