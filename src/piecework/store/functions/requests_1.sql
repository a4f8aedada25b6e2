-- Which of a worker's jobs are to be cancelled. Requests of jobs that have ended go: a settle takes its own along, unless
-- the job's row was locked for so long that the request was placed without waiting for it.
-- params:  $1 worker uuid
-- returns: text: JSON array of [id, claim_no]; null when there are none
CREATE OR REPLACE FUNCTION /*schema.*/requests_1(p_worker uuid) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF pg_relation_size('cancel_requests') = 0 THEN
        RETURN NULL; -- most beats: nothing was ever requested, or vacuum has removed it
    END IF;
    -- By their places, and by no order that an index has: so rows that are gone, and that an open transaction keeps, are
    -- passed over a page at a time.
    DELETE FROM cancel_requests WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM cancel_requests c
        WHERE c.ctid >= '(0,0)' AND (SELECT true FROM jobs j WHERE j.id = c.job_id) IS NULL
        ORDER BY uuid_send(c.job_id) FOR UPDATE SKIP LOCKED));
    RETURN (
        SELECT json_agg(json_build_array(held.id, held.claim_no))::text
        FROM cancel_requests c
        CROSS JOIN LATERAL (
            SELECT j.id, j.claim_no FROM jobs j
            WHERE j.id = c.job_id AND coalesce(j.worker_id = p_worker, false) LIMIT 1) AS held
        WHERE c.ctid >= '(0,0)');
END
$$;
