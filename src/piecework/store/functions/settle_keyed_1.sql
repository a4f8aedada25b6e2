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
    v_rows tid[] := lock_keys_1(p_queues, p_keys);
    v_answers text := settle_1(p_worker, p_ids, p_claim_nos, p_moves, p_ages, p_details);
BEGIN
    -- No answer: all have landed, and none of them runs.
    RETURN json_build_array(v_answers::json, free_keys_1(v_rows, p_ids, v_answers IS NULL)::json)::text;
END
$$;
