-- Claim due jobs lane by lane, at most so many of each and in all. What may not run is never looked at (invariant B). Jobs
-- with a concurrency key are claimed by functions/claim_keyed_1.sql.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[], $6 most integer
-- raises:  no_data_found when the worker is not registered, or was given up for dead
-- returns: text: JSON array of [id, claim_no, job_type, queue, priority, run_at us, attempt, failures, crashes, config], and
--          where a job has any of it: concurrency_key, trace_context, created_at us, saved state, state inherited by its key
CREATE OR REPLACE FUNCTION /*schema.*/claim_1(
    p_worker uuid, p_queues text[], p_job_types text[], p_priorities smallint[], p_counts integer[], p_most integer
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
    v_now timestamptz := coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp());
    v_stateful boolean := EXISTS (SELECT FROM execution_states);
    v_claimed text;
BEGIN
    -- A rescue takes this row FOR UPDATE: so no claim slips in behind it and is owned by a worker that is struck off.
    PERFORM FROM workers w WHERE w.id = p_worker AND w.given_up_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = 'worker ' || p_worker || ' was given up for dead';
    END IF;
    -- A row that changed after the snapshot is locked and not updated, that is, taken in the next round: never a wrong row.
    WITH claimed AS (
        UPDATE jobs SET worker_id = p_worker, claim_no = claim_no + 1, claimed_at = clock_timestamp()
        WHERE ctid = ANY (ARRAY(
            SELECT due.tid
            FROM unnest(p_queues, p_job_types, p_priorities, p_counts) AS lane (queue, job_type, priority, count)
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid FROM jobs j
                WHERE j.queue = lane.queue AND j.job_type = lane.job_type AND j.priority = lane.priority
                  AND j.run_at <= v_now
                  AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NULL
                ORDER BY j.run_at, j.id LIMIT lane.count FOR UPDATE SKIP LOCKED) AS due
            LIMIT p_most))
        RETURNING id, claim_no, job_type, queue, priority, run_at, attempt, failures, crashes, config, key, trace_context,
                  created_at)
    SELECT json_agg(CASE WHEN c.trace_context IS NULL AND NOT (v_stateful AND (c.claim_no > 1 OR c.key IS NOT NULL))
        THEN json_build_array(
            c.id, c.claim_no, c.job_type, c.queue, c.priority, (date_part('epoch', c.run_at) * 1000000)::bigint,
            c.attempt, c.failures, c.crashes, c.config)
        ELSE json_build_array(
            c.id, c.claim_no, c.job_type, c.queue, c.priority, (date_part('epoch', c.run_at) * 1000000)::bigint,
            c.attempt, c.failures, c.crashes, c.config, NULL, c.trace_context,
            (date_part('epoch', c.created_at) * 1000000)::bigint,
            (SELECT s.state FROM execution_states s WHERE s.job_id = c.id),
            (SELECT s.state FROM execution_states s WHERE s.job_type = c.job_type AND s.key = c.key))
        END)::text
    INTO v_claimed FROM claimed c;
    RETURN v_claimed;
END
$$;
