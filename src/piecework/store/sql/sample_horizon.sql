-- How many dead rows there are, what the claims of all workers have cost, and what the horizon guard knew last.
-- returns: text (JSON object, see model/horizon.py, Sample)
WITH dead AS (
    SELECT t.relname, t.n_dead_tup, greatest(t.last_autovacuum, t.last_vacuum) AS vacuumed_at FROM pg_stat_user_tables t
    WHERE t.schemaname = /*schema_text*/ AND t.relname IN ('jobs', 'concurrency_keys')),
claims AS (
    SELECT w.counters -> 'claims' AS c FROM /*schema.*/workers w WHERE w.given_up_at IS NULL)
SELECT json_build_object(
    'at', date_part('epoch', clock_timestamp()),
    'sees_all', pg_has_role('pg_read_all_stats', 'USAGE'),
    'dead', coalesce((SELECT d.n_dead_tup FROM dead d WHERE d.relname = 'jobs'), 0),
    'dead_keys', coalesce((SELECT d.n_dead_tup FROM dead d WHERE d.relname = 'concurrency_keys'), 0),
    'vacuumed', (SELECT date_part('epoch', clock_timestamp() - d.vacuumed_at) FROM dead d WHERE d.relname = 'jobs'),
    'claims', (SELECT json_build_object(
        'calls', coalesce(sum((c ->> 'calls')::bigint), 0), 'jobs', coalesce(sum((c ->> 'jobs')::bigint), 0),
        'seconds', coalesce(sum((c ->> 'seconds')::double precision), 0),
        'worst', coalesce(max((c ->> 'worst')::double precision), 0),
        'slow', coalesce(sum((c ->> 'slow')::bigint), 0),
        'slow_lanes', coalesce((SELECT json_agg(lane) FROM claims, jsonb_array_elements(c -> 'slow_lanes') AS lane), '[]'))
        FROM claims),
    'watch', (SELECT w.counters -> 'horizon' FROM /*schema.*/workers w WHERE w.counters #>> '{horizon,at}' IS NOT NULL
              ORDER BY (w.counters #>> '{horizon,at}')::double precision DESC, w.id LIMIT 1))::text
