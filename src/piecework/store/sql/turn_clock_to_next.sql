-- Turn the manual clock to the first moment after it at which a pending job is due. Workers look.
-- returns: now timestamptz; no row when no job is due later
WITH next AS (
    SELECT min(j.run_at) AS run_at FROM /*schema.*/jobs j
    WHERE j.worker_id IS NULL AND j.run_at <= timestamptz '9999-12-31 00:00+00'
      AND j.run_at > coalesce((SELECT c.now FROM /*schema.*/clock c WHERE c.one), clock_timestamp())),
turned AS (
    INSERT INTO /*schema.*/clock AS c (now) SELECT n.run_at FROM next n WHERE n.run_at IS NOT NULL
    ON CONFLICT (one) DO UPDATE SET now = excluded.now
    RETURNING c.now),
told AS MATERIALIZED (
    SELECT pg_notify(/*channel*/, '"look"'))
SELECT t.now FROM turned t WHERE (SELECT count(*) FROM told) >= 0
