-- Save what a run wants its next attempt to find; of job types whose keys inherit it, the next job with its key. Fenced: the
-- job's row is held meanwhile, so that neither its settle nor a rescue comes in between (invariant C).
-- params:  $1 save text: JSON {id, claim_no, worker, state, inherits boolean}
-- raises:  lock_not_available where an open transaction has completed the job, or saves for it
-- returns: text: null when it is saved, else JSON array [[1, 'lost']]: the claim is another's or nobody's now
CREATE OR REPLACE FUNCTION /*schema.*/save_state_1(p_save text) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET lock_timeout = '5s'
AS $$
DECLARE
    v_save jsonb := p_save;
    v_job record;
BEGIN
    -- Two writes of one run do not wait for each other's transactions; what takes a job away locks its row FOR UPDATE.
    SELECT j.id, j.claim_no, j.job_type, j.key INTO v_job FROM jobs j
    WHERE j.id = (v_save->>'id')::uuid AND j.claim_no = (v_save->>'claim_no')::integer
      AND coalesce(j.worker_id = (v_save->>'worker')::uuid, false)
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN '[[1, "lost"]]';
    END IF;
    IF (v_save->>'inherits')::boolean AND v_job.key IS NOT NULL THEN
        INSERT INTO execution_states (job_type, key, saved_by, claim_no, state)
        VALUES (v_job.job_type, v_job.key, v_job.id, v_job.claim_no, v_save->'state')
        ON CONFLICT (job_type, key) DO UPDATE SET saved_by = excluded.saved_by, claim_no = excluded.claim_no,
            state = excluded.state, updated_at = excluded.updated_at;
    ELSE
        INSERT INTO execution_states (job_id, saved_by, claim_no, state)
        VALUES (v_job.id, v_job.id, v_job.claim_no, v_save->'state')
        ON CONFLICT (job_id) DO UPDATE SET claim_no = excluded.claim_no, state = excluded.state,
            updated_at = excluded.updated_at;
    END IF;
    RETURN NULL;
END
$$;
