-- Spawn jobs from SQL: from psql, a trigger, or another language. The name stays as it is; the parameter is one job or a JSON
-- array of jobs, of which only job_type is needed: an id is made where none is given.
-- params:  $1 jobs text: {job_type, config?, id?, queue?, priority?, delay? us, run_at? us, tags?, key?, concurrency_key?,
--          concurrency_limit?}, or an array of them
-- Who calls it needs EXECUTE on spawn_1 as well.
-- returns: id uuid, created boolean: in the order of the array; of a job whose key is held the id of the holder, not created
CREATE OR REPLACE FUNCTION /*schema.*/spawn(p_jobs text) RETURNS TABLE (id uuid, created boolean)
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_jobs jsonb;
    v_holders jsonb;
    v_missing text;
BEGIN
    v_jobs := p_jobs::jsonb;
    IF jsonb_typeof(v_jobs) = 'object' THEN
        v_jobs := jsonb_build_array(v_jobs);
    END IF;
    SELECT j.job::text INTO v_missing FROM jsonb_array_elements(v_jobs) AS j (job)
    WHERE coalesce(j.job->>'job_type', '') = '' LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'a job without a job_type: ' || left(v_missing, 200),
            HINT = 'Write {"job_type": "send_email", "config": {"to": "ada@example.org"}}.';
    END IF;
    -- Time-ordered like the ids that clients make (RFC 9562, version 7): the milliseconds, then what is random.
    SELECT jsonb_agg(jsonb_build_object('config', '{}'::jsonb, 'id', overlay(overlay(
               replace(gen_random_uuid()::text, '-', '') PLACING
               lpad(to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0') FROM 1) PLACING '7' FROM 13))
               || jsonb_strip_nulls(j.job - 'config') || CASE WHEN j.job ? 'config'
                  THEN jsonb_build_object('config', j.job->'config') ELSE '{}'::jsonb END
               || CASE WHEN j.job ? 'id' THEN '{"chosen": true}'::jsonb ELSE '{}'::jsonb END ORDER BY j.position)
    INTO v_jobs FROM jsonb_array_elements(v_jobs) WITH ORDINALITY AS j (job, position);
    v_holders := spawn_1(v_jobs::text);
    RETURN QUERY
    SELECT coalesce((SELECT (h->>1)::uuid FROM jsonb_array_elements(v_holders) AS h
                     WHERE (h->>0)::bigint = j.position - 1), (j.job->>'id')::uuid),
           (SELECT false FROM jsonb_array_elements(v_holders) AS h WHERE (h->>0)::bigint = j.position - 1) IS NULL
    FROM jsonb_array_elements(v_jobs) WITH ORDINALITY AS j (job, position)
    ORDER BY j.position;
END
$$;
