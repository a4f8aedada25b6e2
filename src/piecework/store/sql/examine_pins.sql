-- Whoever keeps vacuum from removing dead rows of this database, or could: open transactions, slots, standbys.
-- returns: kind text, name text, pid integer, role text, state text, seconds double precision (null: not visible to this role, or
--          not known), query_start timestamptz, xids integer (transactions begun since; null: it pins nothing), pinned text
--          (the transaction id held on to), query text (its beginning), catalog_only boolean
SELECT 'session' AS kind, a.application_name AS name, a.pid, a.usename::text AS role, a.state,
       date_part('epoch', clock_timestamp() - a.xact_start) AS seconds, a.query_start,
       greatest(age(a.backend_xmin), age(a.backend_xid)) AS xids,
       -- A transaction that has written keeps its id, while its statements take one snapshot after the other.
       coalesce(a.backend_xid, a.backend_xmin)::text AS pinned,
       CASE WHEN a.state IS NOT NULL THEN left(a.query, 200) END AS query, false AS catalog_only
FROM pg_stat_activity a
-- The type of the sessions of others is hidden from a role that may not see them; their snapshots are not.
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND coalesce(a.backend_type, '') <> 'walsender'
  AND coalesce(a.xact_start::text, a.backend_xmin::text, a.backend_xid::text) IS NOT NULL
  AND coalesce(a.query, '') NOT LIKE 'autovacuum: VACUUM%'
UNION ALL
SELECT 'standby', r.application_name, r.pid, r.usename::text, r.state, NULL, NULL, age(r.backend_xmin),
       r.backend_xmin::text, NULL, false
FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
UNION ALL
SELECT 'slot', s.slot_name::text, s.active_pid, NULL, CASE WHEN s.active THEN 'active' ELSE 'inactive' END, NULL, NULL,
       age(coalesce(s.xmin, s.catalog_xmin)), coalesce(s.xmin, s.catalog_xmin)::text, NULL, s.xmin IS NULL
FROM pg_replication_slots s WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
UNION ALL
SELECT 'prepared transaction', p.gid, NULL, p.owner::text, 'prepared', date_part('epoch', clock_timestamp() - p.prepared),
       p.prepared, age(p.transaction), p.transaction::text, NULL, false
FROM pg_prepared_xacts p WHERE p.database = current_database()
ORDER BY 8 DESC NULLS LAST, 6 DESC NULLS LAST LIMIT 100
