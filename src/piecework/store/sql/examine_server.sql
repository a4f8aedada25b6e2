-- What a doctor asks of a server, a database and a role. Read in a session whose defaults are not pinned.
-- returns: text (JSON object, see store/examination.py, Server)
SELECT json_build_object(
    'version_num', current_setting('server_version_num')::integer, 'version', current_setting('server_version'),
    'database', current_database(), 'role', current_user, 'standby', pg_is_in_recovery(),
    'isolation', current_setting('default_transaction_isolation'),
    'read_only', current_setting('default_transaction_read_only')::boolean,
    'encoding', current_setting('server_encoding'), 'autovacuum', current_setting('autovacuum')::boolean,
    'track_counts', current_setting('track_counts')::boolean,
    'toast_compression', current_setting('default_toast_compression'),
    'sees_all', pg_has_role('pg_read_all_stats', 'USAGE'),
    'clock', date_part('epoch', clock_timestamp()),
    'max_connections', current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0),
    'connections', s.all_in_use,
    'free_connections', least(
        current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
            - coalesce(current_setting('reserved_connections', true)::integer, 0) - s.all_in_use,
        CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit - s.of_database END,
        CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit - s.of_role END))::text
FROM pg_database d, pg_roles r,
     (SELECT count(*) AS all_in_use, count(*) FILTER (WHERE a.datname = current_database()) AS of_database,
             count(*) FILTER (WHERE a.usename = current_user) AS of_role
      FROM pg_stat_activity a WHERE a.backend_type = 'client backend') AS s
WHERE d.datname = current_database() AND r.rolname = current_user
