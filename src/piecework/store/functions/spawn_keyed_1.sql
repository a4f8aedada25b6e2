-- Create those jobs of a spawn that have a key, each unless a live job of its type holds the key. Several with one key in one
-- call are one job: the first in the order of the array.
-- params:  $1 jobs text (as functions/spawn_1.sql)
-- returns: text: null when all were created, else JSON array of [position from 0, id of the live job with its key]
-- raises:  feature_not_supported above READ COMMITTED; lock_not_available where an open transaction holds the key
CREATE OR REPLACE FUNCTION /*schema.*/spawn_keyed_1(p_jobs text) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_waits text := current_setting('lock_timeout');
    v_open integer[];
    v_made uuid[];
    v_holders json[] := '{}';
    v_found record;
BEGIN
    SELECT array_agg(j.position::integer - 1) INTO v_open
    FROM ROWS FROM (jsonb_to_recordset(p_jobs::jsonb) AS (key text)) WITH ORDINALITY AS j (key, position)
    WHERE j.key IS NOT NULL;
    IF v_open IS NULL THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'a job with a key needs READ COMMITTED, this transaction is '
                      || current_setting('transaction_isolation')
                      || ': the live job with the key may be too new for it to be seen';
    END IF;
    -- Somebody's open transaction may hold the key: it spawned it, or completed its job. Nobody waits for that for ever.
    IF v_waits = '0' THEN
        SET LOCAL lock_timeout = '5s';
    END IF;
    -- A holder may have ended between the insert that met it and the look for it: then there is another round.
    FOR round IN 1..3 LOOP
        WITH made AS (
            INSERT INTO jobs (
                id, job_type, config, queue, priority, run_at, tags, key, concurrency_key, concurrency_limit, trace_context)
            SELECT j.id, j.job_type, coalesce(j.config, 'null'), coalesce(j.queue, 'default'), coalesce(j.priority, 0),
                   CASE WHEN j.run_at IS NOT NULL THEN timestamptz 'epoch' + j.run_at * interval '1 microsecond'
                        ELSE coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp())
                             + coalesce(j.delay, 0) * interval '1 microsecond' END,
                   j.tags, j.key, j.concurrency_key, j.concurrency_limit, j.trace_context
            FROM ROWS FROM (jsonb_to_recordset(p_jobs::jsonb) AS (
                    id uuid, job_type text, config jsonb, queue text, priority smallint, run_at bigint, delay bigint,
                    tags text[], key text, concurrency_key text, concurrency_limit smallint, trace_context jsonb))
                WITH ORDINALITY AS j (
                    id, job_type, config, queue, priority, run_at, delay, tags, key, concurrency_key, concurrency_limit,
                    trace_context, position)
            WHERE j.position - 1 = ANY (v_open)
            ORDER BY j.job_type, j.key, j.position
            ON CONFLICT (job_type, key) WHERE key IS NOT NULL DO NOTHING
            RETURNING id)
        SELECT array_agg(m.id) INTO v_made FROM made m;

        FOR v_found IN
            SELECT j.position::integer - 1 AS position, j.id, held.id AS holder
            FROM ROWS FROM (jsonb_to_recordset(p_jobs::jsonb) AS (id uuid, job_type text, key text))
                WITH ORDINALITY AS j (id, job_type, key, position)
            CROSS JOIN LATERAL (
                SELECT h.id FROM jobs h WHERE h.job_type = j.job_type AND h.key = j.key LIMIT 1) AS held
            WHERE j.position - 1 = ANY (v_open) AND j.key IS NOT NULL
        LOOP
            v_open := array_remove(v_open, v_found.position);
            -- A holder may have the very id that its caller chose.
            IF v_found.holder <> v_found.id OR v_found.id <> ALL (coalesce(v_made, '{}')) THEN
                v_holders := v_holders || json_build_array(v_found.position, v_found.holder);
            END IF;
        END LOOP;
        EXIT WHEN cardinality(v_open) = 0;
    END LOOP;
    IF v_waits = '0' THEN
        SET LOCAL lock_timeout = 0;
    END IF;
    IF cardinality(v_open) > 0 THEN
        RAISE serialization_failure USING
            MESSAGE = 'live jobs with these keys came and went three times while they were spawned';
    END IF;
    RETURN nullif(array_to_json(v_holders)::text, '[]');
END
$$;
