-- End claims in the transaction of whoever calls: as functions/settle_1.sql, but a row that is locked is waited for, and
-- without these claims' ends the transaction cannot be committed. It never raises for a claim that is lost: an error that is
-- swallowed would take the guard along where there is a savepoint. Concurrency keys are left alone, since others would wait
-- for the transaction: the worker hands them on when it knows how that ended.
-- params:  $1 completions text: JSON {worker, claims [[id, claim_no, move, age us, detail or null], ...]}
-- raises:  lock_not_available where another open transaction holds a job
-- returns: text: null when all are in place, else JSON array of [position from 1, 'landed before' | 'lost']
CREATE OR REPLACE FUNCTION /*schema.*/complete_1(p_completions text) RETURNS text
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
    v_worker uuid := (p_completions::jsonb->>'worker')::uuid;
    v_ids uuid[];
    v_claim_nos integer[];
    v_moves text[];
    v_ages bigint[];
    v_details jsonb;
BEGIN
    PERFORM guard_1(p_completions);
    SELECT array_agg((c.claim->>0)::uuid ORDER BY c.position), array_agg((c.claim->>1)::integer ORDER BY c.position),
           array_agg(c.claim->>2 ORDER BY c.position), array_agg((c.claim->>3)::bigint ORDER BY c.position),
           jsonb_agg(c.claim->4 ORDER BY c.position)
    INTO v_ids, v_claim_nos, v_moves, v_ages, v_details
    FROM jsonb_array_elements(p_completions::jsonb->'claims') WITH ORDINALITY AS c (claim, position);
    -- Whoever holds a row does so for a moment: a state that is being saved, a request to cancel, a rescue.
    PERFORM FROM (SELECT u.id, u.claim_no FROM unnest(v_ids, v_claim_nos) AS u (id, claim_no) ORDER BY u.id) AS wanted
    CROSS JOIN LATERAL (
        SELECT j.id FROM jobs j
        WHERE j.id = wanted.id AND j.claim_no = wanted.claim_no AND coalesce(j.worker_id = v_worker, false)
        FOR UPDATE) AS held;
    RETURN settle_1(v_worker, v_ids, v_claim_nos, v_moves, v_ages, v_details::text);
END
$$;
