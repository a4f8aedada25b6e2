-- Take a snapshot, which is kept until the transaction ends, and a transaction id.
-- returns: snapshot text, transaction id text
SELECT pg_current_snapshot()::text, pg_current_xact_id()::text
