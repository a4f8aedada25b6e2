-- Enter what a test job does into the ledger, in the transaction of whoever calls.
-- params:  $1 entry text (JSON array: job id, event, claim_no, process, well)
-- returns: rows text
WITH entry AS (SELECT $1::text::jsonb AS e),
written AS (
    INSERT INTO /*schema.*/history_ledger (job_id, event, claim_no, process, well)
    SELECT (e->>0)::uuid, e->>1, (e->>2)::integer, e->>3, (e->>4)::boolean FROM entry RETURNING 1)
SELECT count(*)::text FROM written
