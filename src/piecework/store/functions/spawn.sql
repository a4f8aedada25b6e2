-- Spawn jobs from SQL: from psql, a trigger, or another language. The name stays as it is; the parameter is one job or a JSON
-- array of jobs, of which only job_type is needed: an id is made where none is given.
-- params:  $1 jobs text: {job_type, config?, id?, queue?, priority?, delay? us, run_at? us, tags?, key?, concurrency_key?,
--          concurrency_limit?}, or an array of them
-- Who calls it needs EXECUTE on spawn_1 as well. Names and tags are held to the limits of the Python API (docs/guide.md).
-- returns: id uuid, created boolean: in the order of the array; of a job whose key is held the id of the holder, not created
CREATE OR REPLACE FUNCTION /*schema.*/spawn(p_jobs text) RETURNS TABLE (id uuid, created boolean)
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_jobs jsonb;
    v_holders jsonb;
    v_given text;
    v_what text;
BEGIN
    v_jobs := p_jobs::jsonb;
    IF jsonb_typeof(v_jobs) = 'object' THEN
        v_jobs := jsonb_build_array(v_jobs);
    END IF;
    SELECT j.job::text INTO v_given FROM jsonb_array_elements(v_jobs) AS j (job)
    WHERE coalesce(j.job->>'job_type', '') = '' LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'a job without a job_type: ' || left(v_given, 200),
            HINT = 'Write {"job_type": "send_email", "config": {"to": "ada@example.org"}}.';
    END IF;
    SELECT f.name, j.job->>f.name INTO v_what, v_given
    FROM jsonb_array_elements(v_jobs) AS j (job)
    CROSS JOIN unnest(ARRAY['job_type', 'queue', 'key', 'concurrency_key']) AS f (name)
    WHERE coalesce(j.job->f.name, 'null') <> 'null'
      AND (jsonb_typeof(j.job->f.name) <> 'string' OR length(j.job->>f.name) NOT BETWEEN 1 AND 200) LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = v_what || ' takes a text of 1 to 200 characters, got ' || length(v_given) || ': '
                      || left(v_given, 60);
    END IF;
    SELECT left((j.job->'tags')::text, 200) INTO v_given FROM jsonb_array_elements(v_jobs) AS j (job)
    WHERE coalesce(j.job->'tags', 'null') <> 'null' AND CASE WHEN jsonb_typeof(j.job->'tags') <> 'array' THEN true
        ELSE jsonb_array_length(j.job->'tags') > 50 OR EXISTS (
            SELECT FROM jsonb_array_elements(j.job->'tags') AS t (tag)
            WHERE jsonb_typeof(t.tag) <> 'string' OR length(t.tag #>> '{}') NOT BETWEEN 1 AND 100) END LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'tags takes at most 50 texts of 1 to 100 characters, got ' || v_given;
    END IF;
    SELECT left(j.job->>'concurrency_limit', 60) INTO v_given FROM jsonb_array_elements(v_jobs) AS j (job)
    WHERE coalesce(j.job->'concurrency_limit', 'null') <> 'null'
      AND CASE jsonb_typeof(j.job->'concurrency_limit') WHEN 'number'
          THEN (j.job->>'concurrency_limit')::numeric NOT BETWEEN 1 AND 32767 ELSE true END LIMIT 1;
    IF FOUND THEN
        RAISE invalid_parameter_value USING MESSAGE = 'concurrency_limit takes 1 to 32767, got ' || v_given;
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
