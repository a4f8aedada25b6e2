-- Let the current transaction be committed only if it ends these claims: the trigger on guards looks at COMMIT, whatever
-- errors were swallowed and whatever savepoints were rolled back since (invariant C). The jobs' rows are not locked.
-- params:  $1 guard text: JSON {worker, claims [[id, claim_no], ...]}
-- returns: text: null, or JSON array of [position from 1, 'lost'] of the claims that are lost already
CREATE OR REPLACE FUNCTION /*schema.*/guard_1(p_guard text) RETURNS text
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
    v_worker uuid := (p_guard::jsonb->>'worker')::uuid;
    v_claims jsonb := p_guard::jsonb->'claims';
BEGIN
    -- The transaction may have all its constraints checked at once; this one cannot hold before its end.
    SET CONSTRAINTS /*schema.*/guard DEFERRED;
    INSERT INTO guards (job_id, claim_no, worker_id)
    SELECT (c.claim->>0)::uuid, (c.claim->>1)::integer, v_worker FROM jsonb_array_elements(v_claims) AS c (claim)
    ORDER BY 1
    ON CONFLICT DO NOTHING;
    RETURN (
        SELECT json_agg(json_build_array(c.position, 'lost'))::text
        FROM jsonb_array_elements(v_claims) WITH ORDINALITY AS c (claim, position)
        WHERE (SELECT true FROM jobs j
               WHERE j.id = (c.claim->>0)::uuid AND j.claim_no = (c.claim->>1)::integer
                 AND coalesce(j.worker_id = v_worker, false) LIMIT 1) IS NULL);
END
$$;
