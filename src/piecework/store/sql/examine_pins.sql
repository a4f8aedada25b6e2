-- Whoever keeps vacuum from removing dead rows of this database, or could: open transactions, slots, standbys.
-- returns: kind text, name text, pid integer, role text, state text, seconds double precision (null: not visible to this role, or
--          not known), query_start timestamptz, xids integer (transactions begun since; null: it pins nothing)
SELECT 'session' AS kind, a.application_name AS name, a.pid, a.usename::text AS role, a.state,
       date_part('epoch', clock_timestamp() - a.xact_start) AS seconds, a.query_start,
       greatest(age(a.backend_xmin), age(a.backend_xid)) AS xids
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.backend_type <> 'walsender'
  AND coalesce(a.xact_start::text, a.backend_xmin::text, a.backend_xid::text) IS NOT NULL
  AND coalesce(a.query, '') NOT LIKE 'autovacuum: VACUUM%'
UNION ALL
SELECT 'standby', r.application_name, r.pid, r.usename::text, r.state, NULL, NULL, age(r.backend_xmin)
FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
UNION ALL
SELECT 'slot', s.slot_name::text, s.active_pid, NULL, CASE WHEN s.active THEN 'active' ELSE 'inactive' END, NULL, NULL,
       greatest(age(s.xmin), age(s.catalog_xmin))
FROM pg_replication_slots s WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
UNION ALL
SELECT 'prepared transaction', p.gid, NULL, p.owner::text, 'prepared', date_part('epoch', clock_timestamp() - p.prepared),
       p.prepared, age(p.transaction)
FROM pg_prepared_xacts p WHERE p.database = current_database()
ORDER BY 6 DESC NULLS LAST, 8 DESC NULLS LAST LIMIT 100
