-- Claim due jobs lane by lane, at most so many of each and in all. What may not run is never looked at (invariant B). Jobs
-- with a concurrency key are claimed by functions/claim_keyed_1.sql.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[], $6 most integer,
--          $7 after_run_at bigint (us) and $8 after_id uuid: only what comes after these in the order (run_at, id) of the first
--          lane, which then is the only one; null: from the start. A time that lies ahead of the clock is from the start, too
-- raises:  no_data_found when the worker is not registered, or was given up for dead
-- returns: text: JSON array of: how many index entries were passed over, how long it took (us), and an array of
--          [id, claim_no, lane, run_at us, attempt, failures, crashes, config], lane being its place in the arrays, from 1;
--          where a job has any of it besides: trace_context, created_at us, saved state, state inherited by its key.
--          null when none is due and none was passed over
CREATE OR REPLACE FUNCTION /*schema.*/claim_1(
    p_worker uuid, p_queues text[], p_job_types text[], p_priorities smallint[], p_counts integer[], p_most integer,
    p_after_run_at bigint, p_after_id uuid
) RETURNS text
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
    v_now timestamptz;
    v_after timestamptz := timestamptz 'epoch' + p_after_run_at * interval '1 microsecond';
    -- By the size of the file: to find no row, one would walk over all that are gone and that an open transaction keeps.
    v_stateful boolean := pg_relation_size('execution_states') > 0;
    -- The session's own counters: they are not reset before the transaction has ended.
    v_read bigint := pg_stat_get_xact_tuples_returned('jobs_lane'::regclass);
    v_lanes jsonb;
    v_tids tid[];
    v_claimed text;
    v_count bigint;
BEGIN
    -- A rescue takes this row FOR UPDATE: so no claim slips in behind it and is owned by a worker that is struck off.
    SELECT coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp()) INTO v_now
    FROM workers w WHERE w.id = p_worker AND w.given_up_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = 'worker ' || p_worker || ' was given up for dead';
    END IF;
    IF v_after <= v_now THEN
        v_tids := ARRAY(
            SELECT j.ctid FROM jobs j
            WHERE j.queue = p_queues[1] AND j.job_type = p_job_types[1] AND j.priority = p_priorities[1]
              AND j.run_at <= v_now AND (j.run_at, j.id) > (v_after, p_after_id)
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NULL
            ORDER BY j.run_at, j.id LIMIT least(p_counts[1], p_most) FOR UPDATE SKIP LOCKED);
    ELSE
        v_tids := ARRAY(
            SELECT due.tid
            FROM unnest(p_queues, p_job_types, p_priorities, p_counts) AS lane (queue, job_type, priority, count)
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid FROM jobs j
                WHERE j.queue = lane.queue AND j.job_type = lane.job_type AND j.priority = lane.priority
                  AND j.run_at <= v_now
                  AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NULL
                ORDER BY j.run_at, j.id LIMIT lane.count FOR UPDATE SKIP LOCKED) AS due
            LIMIT p_most);
    END IF;
    IF cardinality(p_queues) > 1 THEN
        v_lanes := (
            SELECT jsonb_object_agg(concat(u.priority, ' ', length(u.queue), ' ', u.queue, u.job_type), u.position::text)
            FROM unnest(p_queues, p_job_types, p_priorities) WITH ORDINALITY AS u (queue, job_type, priority, position));
    END IF;
    WITH claimed AS (
        UPDATE jobs SET worker_id = p_worker, claim_no = claim_no % 2147483647 + 1, claimed_at = clock_timestamp()
        WHERE ctid = ANY (v_tids)
        RETURNING id, claim_no, job_type, queue, priority, run_at, attempt, failures, crashes, config, key, trace_context,
                  created_at)
    -- Whatever stands in the table can be told: a moment that no bigint holds (-infinity, by hand) as one that is as old.
    -- Texts that are put together, since json_build_array looks up the type of each value anew.
    SELECT string_agg(concat(
        '["', c.id, '",', c.claim_no, ',',
        CASE WHEN v_lanes IS NULL THEN '1'
             ELSE v_lanes ->> concat(c.priority, ' ', length(c.queue), ' ', c.queue, c.job_type) END, ',',
        (date_part('epoch', greatest(c.run_at, timestamptz '0001-01-02 00:00+00')) * 1000000)::bigint, ',',
        c.attempt, ',', c.failures, ',', c.crashes, ',', c.config,
        CASE WHEN c.trace_context IS NULL AND NOT (v_stateful AND (c.claim_no > 1 OR c.key IS NOT NULL)) THEN ''
             ELSE concat(
                 ',', coalesce(c.trace_context, 'null'), ',',
                 (date_part('epoch', least(greatest(c.created_at, timestamptz '0001-01-02 00:00+00'),
                                           timestamptz '9999-12-31 00:00+00')) * 1000000)::bigint, ',',
                 coalesce((SELECT s.state FROM execution_states s WHERE s.job_id = c.id), 'null'), ',',
                 coalesce((SELECT s.state FROM execution_states s WHERE s.job_type = c.job_type AND s.key = c.key), 'null'))
             END, ']'), ','), count(*)
    INTO v_claimed, v_count FROM claimed c;
    v_read := pg_stat_get_xact_tuples_returned('jobs_lane'::regclass) - v_read - v_count;
    RETURN CASE WHEN v_claimed IS NOT NULL OR v_read > 0 THEN concat(
        '[', greatest(v_read, 0), ',', (date_part('epoch', clock_timestamp() - v_began) * 1000000)::bigint,
        ',[', v_claimed, ']]') END;
END
$$;
