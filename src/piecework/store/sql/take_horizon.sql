-- Take a transaction id newer than all that have been taken. A snapshot's xmax would not do: it follows the last
-- transaction that has ended, so one that is open may lie beyond it.
-- returns: bigint
SELECT pg_current_xact_id()::text::bigint
