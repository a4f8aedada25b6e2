-- Delete the rows of concurrency keys that no job holds or waits for. The caller has locked them.
-- params:  $1 queues text[], $2 keys text[]
-- returns: void
CREATE OR REPLACE FUNCTION /*schema.*/drop_unused_keys_1(p_queues text[], p_keys text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    DELETE FROM concurrency_keys WHERE ctid = ANY (ARRAY(
        SELECT k.tid FROM unnest(p_queues, p_keys) AS u (queue, key)
        CROSS JOIN LATERAL (
            SELECT k.ctid AS tid, k.running FROM concurrency_keys k
            WHERE k.queue = u.queue AND k.concurrency_key = u.key LIMIT 1) AS k
        WHERE k.running = '{}'
          AND (SELECT true FROM jobs j WHERE j.queue = u.queue AND j.concurrency_key = u.key AND j.parked LIMIT 1) IS NULL));
END
$$;
