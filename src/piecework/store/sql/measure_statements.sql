-- Statements that clients sent and that name this schema. Fails where pg_stat_statements is not loaded and created.
-- returns: calls bigint
SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s
WHERE s.toplevel AND s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND position(/*schema_text*/ IN s.query) > 0
