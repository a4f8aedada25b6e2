-- Settle claims of jobs with a concurrency key, and hand the keys on: as functions/settle_1.sql, under the locks of the keys.
-- params:  $1 worker uuid, $2 ids uuid[], $3 claim_nos integer[], $4 moves text[], $5 ages bigint[], $6 details text,
--          $7 queues text[], $8 keys text[] (as long as the ids)
-- returns: text: JSON array of what settle_1 answers, and of null or the lanes [queue, job_type, priority] that have jobs again
CREATE OR REPLACE FUNCTION /*schema.*/settle_keyed_1(
    p_worker uuid, p_ids uuid[], p_claim_nos integer[], p_moves text[], p_ages bigint[], p_details text, p_queues text[],
    p_keys text[]
) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
AS $$
DECLARE
    v_answers text;
    v_lanes text;
    v_queues text[];
    v_keys text[];
BEGIN
    PERFORM lock_keys_1(p_queues, p_keys);
    v_answers := settle_1(p_worker, p_ids, p_claim_nos, p_moves, p_ages, p_details);
    SELECT array_agg(d.queue), array_agg(d.key) INTO v_queues, v_keys
    FROM (SELECT DISTINCT u.queue, u.key FROM unnest(p_queues, p_keys) AS u (queue, key)) AS d;
    v_lanes := free_keys_1(v_queues, v_keys, p_ids);
    RETURN json_build_array(v_answers::json, v_lanes::json)::text;
END
$$;
