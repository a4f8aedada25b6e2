-- Look for work: the lanes that hold claimable jobs, by loose index scans, one probe per lane and one more per (queue, job
-- type). Besides: which transactions it cannot have missed, and how many jobs the worker owns.
-- params:  $1 worker uuid (null: what it owns is not counted), $2 queues text[], $3 job_types text[]
-- returns: text: JSON array of
--          lanes: null or array of [queue, job_type, priority, whether of jobs with a concurrency key, microseconds until its
--          first job is due (0 or less: due; while a manual clock is set, none but these)],
--          xmin (every transaction before it had ended before this look), jobs owned, how many index entries were walked over,
--          how long it took (us)
CREATE OR REPLACE FUNCTION /*schema.*/look_1(p_worker uuid, p_queues text[], p_job_types text[]) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_began timestamptz := clock_timestamp();
    v_read bigint := pg_stat_get_xact_tuples_returned('jobs_lane'::regclass)
        + pg_stat_get_xact_tuples_returned('jobs_key_lane'::regclass)
        + pg_stat_get_xact_tuples_returned('jobs_owner'::regclass);
    v_xmin bigint;
    v_manual timestamptz := (SELECT c.now FROM clock c WHERE c.one);
    v_now timestamptz := coalesce(v_manual, clock_timestamp());
    v_lanes json;
    v_owned bigint;
BEGIN
    -- A statement of its own: the next one's snapshot is as new or newer, so it sees all that had ended by this one.
    v_xmin := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    WITH RECURSIVE line AS (
        SELECT q.queue, t.job_type, head.priority, head.run_at
        FROM unnest(p_queues) AS q (queue) CROSS JOIN unnest(p_job_types) AS t (job_type)
        CROSS JOIN LATERAL (
            SELECT j.priority, j.run_at FROM jobs j
            WHERE j.queue = q.queue AND j.job_type = t.job_type
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NULL
            ORDER BY j.priority, j.run_at, j.id LIMIT 1) AS head
        UNION ALL
        SELECT line.queue, line.job_type, head.priority, head.run_at
        FROM line
        CROSS JOIN LATERAL (
            SELECT j.priority, j.run_at FROM jobs j
            WHERE j.queue = line.queue AND j.job_type = line.job_type AND j.priority > line.priority
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NULL
            ORDER BY j.priority, j.run_at, j.id LIMIT 1) AS head),
    keyed_line AS (
        SELECT q.queue, t.job_type, head.priority, head.run_at
        FROM unnest(p_queues) AS q (queue) CROSS JOIN unnest(p_job_types) AS t (job_type)
        CROSS JOIN LATERAL (
            SELECT j.priority, j.run_at FROM jobs j
            WHERE j.queue = q.queue AND j.job_type = t.job_type
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NOT NULL
            ORDER BY j.priority, j.run_at, j.id LIMIT 1) AS head
        UNION ALL
        SELECT line.queue, line.job_type, head.priority, head.run_at
        FROM keyed_line AS line
        CROSS JOIN LATERAL (
            SELECT j.priority, j.run_at FROM jobs j
            WHERE j.queue = line.queue AND j.job_type = line.job_type AND j.priority > line.priority
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NOT NULL
            ORDER BY j.priority, j.run_at, j.id LIMIT 1) AS head)
    -- A moment that has no distance (infinity, by hand) is told as one that is as far away.
    SELECT json_agg(json_build_array(
               line.queue, line.job_type, line.priority, line.keyed,
               (date_part('epoch', least(greatest(line.run_at, timestamptz '0001-01-02 00:00+00'),
                                         timestamptz '9999-12-31 00:00+00') - v_now) * 1000000)::bigint))
    INTO v_lanes
    FROM (SELECT *, false AS keyed FROM line UNION ALL SELECT *, true FROM keyed_line) AS line
    -- A clock that stands still makes nothing due: whoever turns it has all workers look.
    WHERE v_manual IS NULL OR line.run_at <= v_now;
    SELECT count(*) INTO v_owned FROM jobs j WHERE j.worker_id = p_worker;
    -- As in claim_1.
    v_read := pg_stat_get_xact_tuples_returned('jobs_lane'::regclass)
        + pg_stat_get_xact_tuples_returned('jobs_key_lane'::regclass)
        + pg_stat_get_xact_tuples_returned('jobs_owner'::regclass) - v_read;
    RETURN json_build_array(
        v_lanes, v_xmin, v_owned, v_read, (date_part('epoch', clock_timestamp() - v_began) * 1000000)::bigint)::text;
END
$$;
