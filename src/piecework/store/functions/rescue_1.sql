-- Take back the jobs of a dead worker and strike it off. Interrupted, it is simply called again.
-- params:  $1 dead uuid, $2 beat_no bigint (as the observer saw it: a worker that beat since is left alone), $3 lease interval
-- returns: text: JSON array of [id, job_type] rescued; null when the worker lives or was struck off before
CREATE OR REPLACE FUNCTION /*schema.*/rescue_1(p_dead uuid, p_beat_no bigint, p_lease interval) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_rescued jsonb[] := '{}';
    v_due timestamptz := coalesce((SELECT c.now FROM clock c WHERE c.one), v_now);
    v_job record;
    v_run_at timestamptz;
    v_queues text[];
    v_keys text[];
    v_rows tid[];
BEGIN
    -- Its row is the arbiter between two rescuers, and is gone only when all its jobs are taken back.
    PERFORM FROM workers w WHERE w.id = p_dead AND w.beat_no = p_beat_no FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- Keys before jobs, in one order (invariant D).
    IF pg_relation_size('concurrency_keys') > 0 THEN
        SELECT array_agg(key.queue), array_agg(key.concurrency_key) INTO v_queues, v_keys
        FROM (SELECT DISTINCT j.queue, j.concurrency_key FROM jobs j
              WHERE j.worker_id = p_dead AND j.concurrency_key IS NOT NULL) AS key;
        v_rows := lock_keys_1(v_queues, v_keys);
    END IF;
    -- In the order of their ids, and by an expression that no index has: else the planner may walk the primary key.
    FOR v_job IN
        SELECT j.ctid AS tid, j.id, j.claim_no, j.attempt, j.crashes, j.queue, j.job_type, j.priority, j.claimed_at,
               j.concurrency_key IS NOT NULL AS keyed
        FROM jobs j WHERE j.worker_id = p_dead ORDER BY uuid_send(j.id) FOR UPDATE SKIP LOCKED
    LOOP
        -- At once the first time. From the second on the jobs that shared a worker part: else one that kills its worker
        -- takes the same innocent ones along each time, until all have crashed too often.
        v_run_at := v_due + random() * v_job.crashes * p_lease;
        UPDATE jobs SET worker_id = NULL, claimed_at = NULL, parked = false, run_at = v_run_at,
            attempt = least(attempt, 2147483646) + 1, failures = least(failures, 2147483646) + 1,
            crashes = least(crashes, 2147483646) + 1
        WHERE ctid = v_job.tid;
        INSERT INTO attempts (job_id, claim_no, worker_id, attempt, move, started_at, ended_at, error, next_run_at)
        VALUES (v_job.id, v_job.claim_no, p_dead, v_job.attempt, 'rescue', v_job.claimed_at, v_now,
                jsonb_build_object('type', 'worker lost',
                    'message', 'the worker gave no sign of life for ' || p_lease::text), v_run_at);
        v_rescued := array_append(v_rescued, jsonb_build_array(v_job.id, v_job.job_type));
        PERFORM pg_notify(/*channel*/, jsonb_build_array(
            v_job.queue, v_job.job_type, v_job.priority, '[]'::jsonb, v_job.keyed)::text);
    END LOOP;
    IF pg_relation_size('cancel_requests') > 0 THEN
        PERFORM FROM cancel_1(ARRAY(
            SELECT c.job_id FROM cancel_requests c
            WHERE c.job_id = ANY (ARRAY(SELECT (r->>0)::uuid FROM unnest(v_rescued) AS r)) ORDER BY c.job_id), true);
    END IF;
    PERFORM free_keys_1(v_rows, ARRAY(SELECT (r->>0)::uuid FROM unnest(v_rescued) AS r), true);
    DELETE FROM idle_workers i WHERE i.worker_id = p_dead;
    DELETE FROM workers w WHERE w.id = p_dead AND NOT EXISTS (SELECT FROM jobs j WHERE j.worker_id = p_dead);
    IF NOT FOUND THEN
        -- A job was skipped, since a transaction holds its row. The others are taken, and a worker that lives may not go
        -- on as if they were its own: its next beat and claim find it given up, as if its row were gone.
        UPDATE workers SET given_up_at = v_now WHERE id = p_dead AND given_up_at IS NULL;
    END IF;
    RETURN array_to_json(v_rescued)::text;
END
$$;
