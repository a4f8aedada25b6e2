-- What a worker owns, for the comparison with what it knows of (invariant J).
-- params:  $1 worker uuid
-- returns: text: JSON array as of functions/claim_1.sql, the config left out; null when it owns nothing
SELECT json_agg(json_build_array(
           j.id, j.claim_no, j.job_type, j.queue, j.priority, (date_part('epoch', j.run_at) * 1000000)::bigint, j.attempt,
           j.failures, j.crashes, NULL))::text
FROM /*schema.*/jobs j WHERE j.worker_id = $1::uuid
