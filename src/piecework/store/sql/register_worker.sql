-- Enter a worker; its lease starts with this statement.
-- params:  $1 id uuid, $2 pid integer, $3 host text, $4 lease interval, $5 stop interval, $6 exit interval, $7 queues text[],
--          $8 job_types text[], $9 version text, $10 settings jsonb
INSERT INTO /*schema.*/workers (id, pid, host, lease, stop, exit, queues, job_types, version, settings)
VALUES ($1::uuid, $2::integer, $3::text, $4::interval, $5::interval, $6::interval, $7::text[], $8::text[], $9::text,
        $10::jsonb)
