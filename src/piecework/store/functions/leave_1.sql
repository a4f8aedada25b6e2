-- Strike off a worker that stops in order. While it owns jobs its row stays, so that they can be rescued.
-- params:  $1 worker uuid
-- returns: boolean, whether it was struck off
CREATE OR REPLACE FUNCTION /*schema.*/leave_1(p_worker uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    DELETE FROM idle_workers i WHERE i.worker_id = p_worker;
    -- A claim whose answer was lost may still run, and holds the row. One that has ended is seen by the next statement,
    -- and by that alone; one that comes later finds no row.
    PERFORM FROM workers w WHERE w.id = p_worker FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM workers w WHERE w.id = p_worker AND NOT EXISTS (SELECT FROM jobs j WHERE j.worker_id = p_worker);
    RETURN FOUND;
END
$$;
