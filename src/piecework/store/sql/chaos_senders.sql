-- The processes that send the WAL to standbys.
-- params:  $1 position text (in the WAL)
-- returns: pid integer, whether its standby has the WAL up to there boolean
SELECT r.pid, coalesce(r.state = 'streaming' AND r.flush_lsn >= $1::text::pg_lsn, false)
FROM pg_stat_replication r ORDER BY r.pid
