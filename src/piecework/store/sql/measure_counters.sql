-- What the server has counted so far: commits of the whole database, rows of this schema that vacuum has to remove.
-- returns: commits bigint, dead bigint
SELECT (SELECT d.xact_commit FROM pg_stat_database d WHERE d.datname = current_database()),
       (SELECT coalesce(sum(t.n_dead_tup), 0)::bigint FROM pg_stat_user_tables t WHERE t.schemaname = /*schema_text*/)
