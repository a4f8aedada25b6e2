-- What a bench asks of a server before it makes anything.
-- returns: text (JSON object, see store/measuring.py, Server)
SELECT json_build_object(
    'version', current_setting('server_version'), 'database', current_database(), 'role', current_user,
    'may_create', has_database_privilege(current_database(), 'CREATE'),
    'pid', pg_backend_pid(),
    'since', (SELECT date_part('epoch', a.backend_start) FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()))::text
