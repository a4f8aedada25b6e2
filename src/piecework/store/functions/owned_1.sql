-- What a worker owns, for the comparison with what it knows of (invariant J).
-- params:  $1 worker uuid
-- returns: text: JSON array as of functions/claim_1.sql, the config left out; null when it owns nothing
CREATE OR REPLACE FUNCTION /*schema.*/owned_1(p_worker uuid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT json_agg(json_build_array(
                   j.id, j.claim_no, j.job_type, j.queue, j.priority,
                   (date_part('epoch', least(greatest(j.run_at, timestamptz '0001-01-02 00:00+00'),
                                             timestamptz '9999-12-31 00:00+00')) * 1000000)::bigint,
                   j.attempt, j.failures, j.crashes, NULL))::text
        FROM jobs j WHERE j.worker_id = p_worker);
END
$$;
