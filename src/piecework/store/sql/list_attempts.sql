-- The attempts of one job that ended otherwise than in completion, in their order.
-- params:  $1 id uuid
-- returns: attempt integer, claim_no integer, worker_id uuid, move text, started_at, ended_at, next_run_at timestamptz, error text
SELECT a.attempt, a.claim_no, a.worker_id, a.move, a.started_at, a.ended_at,
       CASE WHEN a.next_run_at IS NOT NULL
            THEN least(greatest(a.next_run_at, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-31 00:00+00') END,
       a.error::text
FROM /*schema.*/attempts a WHERE a.job_id = $1::uuid ORDER BY a.claim_no
