-- Cancel jobs in the caller's own transaction. Until it ends it holds the rows of the jobs, and nobody waits for it because
-- of their concurrency keys: those are swept.
-- params:  $1 ids text: JSON array
-- returns: text: JSON array of 'cancelled' | 'requested' | 'finished' | 'unknown', in the order of the ids
CREATE OR REPLACE FUNCTION /*schema.*/cancel_joined_1(p_ids text) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_ids uuid[] := ARRAY(SELECT id::uuid FROM jsonb_array_elements_text(p_ids::jsonb) WITH ORDINALITY AS j (id, position)
                          ORDER BY position);
    v_answers jsonb := coalesce((SELECT jsonb_object_agg(c.id, c.answer) FROM cancel_1(v_ids, true) AS c), '{}');
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(coalesce(
            v_answers->>u.id::text,
            (SELECT 'finished' FROM finished_jobs f WHERE f.id = u.id LIMIT 1), 'unknown') ORDER BY u.position), '[]')::text
        FROM unnest(v_ids) WITH ORDINALITY AS u (id, position));
END
$$;
