-- Create jobs: one JSON array of objects in. A plain insert that touches no shared row. Of a job with a key, whose key a live
-- job of its type holds already, none is created.
-- params:  $1 jobs text: [{id, job_type, config, queue?, priority?, run_at? us, delay? us, tags?, chosen?, key?,
--          concurrency_key?, concurrency_limit?, trace_context?}]
-- returns: text: null when all were created, else JSON array of [position from 0, id of the live job with its key]
-- raises:  unique_violation, with the id as detail, when a job with a caller's id exists
--
-- It runs with the rights of its owner, so that a role may spawn that may do nothing else (docs/security.md): no dynamic SQL, a
-- fixed search_path, and no word of other jobs but the id of who holds a key.
CREATE OR REPLACE FUNCTION /*schema.*/spawn_1(p_jobs text) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_jobs jsonb := p_jobs::jsonb;
    v_keyed boolean := v_jobs @? '$.key';
    v_chosen boolean := v_jobs @? '$.chosen';
    v_holders text;
    v_chosen_ids uuid[];
    v_ended uuid;
BEGIN
    -- What a job rarely has takes a statement of its own, so that the others do not pay for it.
    IF v_keyed OR v_chosen OR v_jobs @? '$.concurrency_key' OR v_jobs @? '$.trace_context' THEN
        IF v_keyed THEN
            v_holders := spawn_keyed_1(p_jobs);
        END IF;
        INSERT INTO jobs (id, job_type, config, queue, priority, run_at, tags, concurrency_key, concurrency_limit, trace_context)
        SELECT j.id, j.job_type, coalesce(j.config, 'null'), coalesce(j.queue, 'default'), coalesce(j.priority, 0),
               CASE WHEN j.run_at IS NOT NULL THEN timestamptz 'epoch' + j.run_at * interval '1 microsecond'
                    ELSE coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp())
                         + coalesce(j.delay, 0) * interval '1 microsecond' END,
               j.tags, j.concurrency_key, j.concurrency_limit, j.trace_context
        FROM jsonb_to_recordset(v_jobs) AS j (
            id uuid, job_type text, config jsonb, queue text, priority smallint, run_at bigint, delay bigint, tags text[],
            key text, concurrency_key text, concurrency_limit smallint, trace_context jsonb)
        WHERE j.key IS NULL
        -- Two callers with the same ids wait for each other's rows, so all take them in one order (invariant D).
        ORDER BY j.id;
    ELSE
        INSERT INTO jobs (id, job_type, config, queue, priority, run_at, tags)
        SELECT j.id, j.job_type, coalesce(j.config, 'null'), coalesce(j.queue, 'default'), coalesce(j.priority, 0),
               CASE WHEN j.run_at IS NOT NULL THEN timestamptz 'epoch' + j.run_at * interval '1 microsecond'
                    ELSE coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp())
                         + coalesce(j.delay, 0) * interval '1 microsecond' END,
               j.tags
        FROM jsonb_to_recordset(v_jobs) AS j (
            id uuid, job_type text, config jsonb, queue text, priority smallint, run_at bigint, delay bigint, tags text[]);
    END IF;

    -- A caller's id may be that of a job that has ended. Looked up after the insert, in a statement of its own: a settle
    -- that the insert waited for is seen (design review, section 7).
    IF v_chosen THEN
        SELECT array_agg(c.id) INTO v_chosen_ids
        FROM jsonb_to_recordset(v_jobs) AS c (id uuid, chosen boolean) WHERE c.chosen;
        IF v_chosen_ids IS NOT NULL AND current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE feature_not_supported USING
                MESSAGE = 'a job id chosen by the caller needs READ COMMITTED, this transaction is '
                          || current_setting('transaction_isolation');
        END IF;
        SELECT f.id INTO v_ended FROM finished_jobs f WHERE f.id = ANY (v_chosen_ids) LIMIT 1;
        IF FOUND THEN
            RAISE unique_violation USING MESSAGE = 'a job with this id has ended', DETAIL = v_ended::text;
        END IF;
    END IF;

    -- Read after the insert: a worker that declares itself idle from now on looks until this transaction has ended. One
    -- NOTIFY per lane, that names as many sleepers as it takes; the others look a little later. Above READ COMMITTED the
    -- declaration may be too new to be seen, so everybody is told.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM pg_notify(/*channel*/, jsonb_build_array(lane.queue, lane.job_type, lane.priority, '[]'::jsonb, lane.keyed)::text)
        FROM (SELECT DISTINCT coalesce(j.queue, 'default'), j.job_type, coalesce(j.priority, 0),
                              j.concurrency_key IS NOT NULL
              FROM jsonb_to_recordset(v_jobs) AS j (
                  job_type text, queue text, priority smallint, concurrency_key text)
             ) AS lane (queue, job_type, priority, keyed);
    ELSIF EXISTS (SELECT FROM idle_workers i WHERE i.ctid >= '(0,0)') THEN
        PERFORM pg_notify(/*channel*/, jsonb_build_array(
                    lane.queue, lane.job_type, lane.priority, woken.targets, lane.keyed)::text)
        FROM (SELECT coalesce(j.queue, 'default'), j.job_type, coalesce(j.priority, 0), j.concurrency_key IS NOT NULL,
                     count(*)
              FROM jsonb_to_recordset(v_jobs) AS j (
                  job_type text, queue text, priority smallint, concurrency_key text)
              GROUP BY 1, 2, 3, 4) AS lane (queue, job_type, priority, keyed, count)
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(target.worker_id) AS targets
            FROM (SELECT i.worker_id FROM idle_workers i
                  -- True of all, and a way that is not forbidden: by their places, so that rows that are gone are passed
                  -- over a page at a time.
                  WHERE i.ctid >= '(0,0)'
                    AND lane.queue = ANY (i.queues) AND lane.job_type = ANY (i.job_types)
                  ORDER BY random() LIMIT least(ceil(lane.count / 100.0), 100)) AS target) AS woken
        WHERE woken.targets IS NOT NULL;
    END IF;
    RETURN v_holders;
END
$$;
