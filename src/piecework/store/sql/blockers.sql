-- Who has a session wait, the longest transaction first.
-- params:  $1 pid integer
-- returns: pid integer (0: a prepared transaction), application_name text, state text, age double precision (seconds of its
--          transaction), query text
SELECT blocking.pid, coalesce(a.application_name, ''), coalesce(a.state, ''),
       coalesce(date_part('epoch', clock_timestamp() - a.xact_start), 0), coalesce(left(a.query, 200), '')
FROM (SELECT DISTINCT unnest(pg_blocking_pids($1::integer)) AS pid) AS blocking
LEFT JOIN pg_stat_activity a ON a.pid = blocking.pid
ORDER BY a.xact_start, blocking.pid
