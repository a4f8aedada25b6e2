-- Lock the rows of concurrency keys, in the one order in which everybody takes them (invariant D). Those of keys that are not
-- in use do not exist.
-- params:  $1 queues text[], $2 keys text[] (a key may be named several times)
-- returns: tid[]: the rows, which stay where they are until this transaction writes or ends; null where there is none
CREATE OR REPLACE FUNCTION /*schema.*/lock_keys_1(p_queues text[], p_keys text[]) RETURNS tid[]
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT array_agg(k.tid) FROM (
            SELECT DISTINCT u.queue, u.key FROM unnest(p_queues, p_keys) AS u (queue, key) ORDER BY u.queue, u.key) AS u
        CROSS JOIN LATERAL (
            SELECT k.ctid AS tid FROM concurrency_keys k
            WHERE k.queue = u.queue AND k.concurrency_key = u.key FOR NO KEY UPDATE) AS k);
END
$$;
