-- Set the manual clock to a moment, or turn it on from where it stands, from the present where it is not set. Workers look.
-- params:  $1 moment timestamptz (null: turn it on), $2 by interval
-- returns: now timestamptz
WITH turned AS (
    INSERT INTO /*schema.*/clock AS c (now) VALUES (coalesce($1::timestamptz, clock_timestamp() + $2::interval))
    ON CONFLICT (one) DO UPDATE
        SET now = CASE WHEN $1::timestamptz IS NULL THEN least(c.now + $2::interval, timestamptz '9999-12-31 00:00+00')
                       ELSE excluded.now END
    RETURNING c.now),
told AS MATERIALIZED (
    SELECT pg_notify(/*channel*/, '"look"'))
SELECT t.now FROM turned t WHERE (SELECT count(*) FROM told) >= 0
