-- Bring finished jobs back, due now, their counters anew. A job whose key a live job of its type holds stays as it is.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: id uuid, holder uuid (null: it was brought back, else the live job that holds its key), of each that had ended
CREATE OR REPLACE FUNCTION /*schema.*/retry_1(p_ids uuid[], p_since timestamptz) RETURNS TABLE (id uuid, holder uuid)
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
-- An open transaction may hold a key.
SET lock_timeout = '5s'
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp());
    v_job finished_jobs;
    v_holder uuid;
BEGIN
    -- The lock on the history row decides between two operators. Keys are taken in the order in which a spawn takes them
    -- (invariant D), of the jobs of one key the newest first.
    FOR v_job IN
        SELECT f.* FROM finished_jobs f
        WHERE f.id = ANY (p_ids) AND f.finished_at >= p_since AND f.config IS NOT NULL
        ORDER BY f.job_type, f.key, f.id DESC FOR UPDATE
    LOOP
        INSERT INTO jobs (
            id, run_at, created_at, claim_no, priority, concurrency_limit, queue, job_type, config, concurrency_key, key,
            timeout, tags, metadata, trace_context)
        VALUES (
            v_job.id, v_now, v_job.created_at, v_job.claim_no % 2147483647 + 1, v_job.priority, v_job.concurrency_limit,
            v_job.queue, v_job.job_type, v_job.config, v_job.concurrency_key, v_job.key, v_job.timeout, v_job.tags, v_job.metadata,
            v_job.trace_context)
        ON CONFLICT (job_type, key) WHERE key IS NOT NULL DO NOTHING;
        IF FOUND THEN
            DELETE FROM finished_jobs f WHERE f.id = v_job.id AND f.finished_at = v_job.finished_at;
            DELETE FROM cancel_requests c WHERE c.job_id = v_job.id;
            -- Equal notices of a transaction are sent once.
            PERFORM pg_notify(/*channel*/, jsonb_build_array(
                v_job.queue, v_job.job_type, v_job.priority, '[]'::jsonb, v_job.concurrency_key IS NOT NULL)::text);
            RETURN QUERY SELECT v_job.id, NULL::uuid;
        ELSE
            SELECT j.id INTO v_holder FROM jobs j WHERE j.job_type = v_job.job_type AND j.key = v_job.key LIMIT 1;
            IF FOUND THEN
                RETURN QUERY SELECT v_job.id, v_holder;
            END IF;
        END IF;
    END LOOP;
END
$$;
