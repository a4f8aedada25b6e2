-- The sessions of a chaos run, in the order of their process ids.
-- params:  $1 application_name text
-- returns: pid integer, statement text
SELECT a.pid, a.query FROM pg_stat_activity a
WHERE a.application_name = $1::text AND a.datname = current_database() AND a.pid <> pg_backend_pid() ORDER BY a.pid
