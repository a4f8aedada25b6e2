-- Store what a run reports of itself: how far it is, or its result so far. The last report wins, and what it does not name
-- stays. Fenced as functions/save_state_1.sql.
-- params:  $1 report text: JSON {id, claim_no, worker, done? number, note? text, result?: null takes it back}
-- raises:  lock_not_available where an open transaction has completed the job, or reports of it
-- returns: text: null when it is stored, else JSON array [[1, 'lost']]
CREATE OR REPLACE FUNCTION /*schema.*/report_1(p_report text) RETURNS text
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
    v_report jsonb := p_report;
    v_result jsonb := nullif(v_report->'result', 'null');
BEGIN
    PERFORM FROM jobs j
    WHERE j.id = (v_report->>'id')::uuid AND j.claim_no = (v_report->>'claim_no')::integer
      AND coalesce(j.worker_id = (v_report->>'worker')::uuid, false)
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN '[[1, "lost"]]';
    END IF;
    INSERT INTO progress AS p (job_id, claim_no, done, note, result)
    VALUES ((v_report->>'id')::uuid, (v_report->>'claim_no')::integer, (v_report->>'done')::double precision,
            coalesce(v_report->>'note', ''), v_result)
    ON CONFLICT (job_id) DO UPDATE SET claim_no = excluded.claim_no, reported_at = excluded.reported_at,
        done = CASE WHEN v_report ? 'done' THEN excluded.done ELSE p.done END,
        note = CASE WHEN v_report ? 'note' THEN excluded.note ELSE p.note END,
        result = CASE WHEN v_report ? 'result' THEN excluded.result ELSE p.result END;
    RETURN NULL;
END
$$;
