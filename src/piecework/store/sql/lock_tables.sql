-- Lock the tables that missing migrations change, all of them within the time for one lock: who has one and waits for the next
-- has others wait as well. What is locked besides gets what is left of that time.
-- params:  $1 tables text: JSON array of [version, table], in the order of their locks
DO $apply$
DECLARE
    v_tables regclass[] := ARRAY(
        SELECT coalesce(leaf.relid, wanted.relid)
        FROM (SELECT to_regclass(quote_ident(/*schema_text*/) || '.' || quote_ident(w.pair->>1)) AS relid,
                     min(w.position) AS position
              FROM json_array_elements($1::json) WITH ORDINALITY AS w (pair, position)
              WHERE NOT EXISTS (SELECT FROM /*schema.*/migrations m WHERE m.version = (w.pair->>0)::integer)
              GROUP BY 1) AS wanted
        LEFT JOIN LATERAL pg_partition_tree(wanted.relid) AS leaf ON true
        WHERE wanted.relid IS NOT NULL
        ORDER BY wanted.position, leaf.level, leaf.relid);
    v_most integer := (SELECT s.setting FROM pg_settings s WHERE s.name = 'lock_timeout');
    v_table regclass;
    v_until timestamptz;
BEGIN
    -- Vacuums first, by a lock that nothing else wants, so that nobody waits behind. One of autovacuum gives way to whoever has
    -- waited for it for deadlock_timeout, a second, which is longer than others may be kept waiting.
    PERFORM set_config('lock_timeout', least(nullif(current_setting('piecework.lock_timeout')::integer, 0), 5000)::text, true);
    FOREACH v_table IN ARRAY v_tables LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', v_table);
    END LOOP;
    v_until := clock_timestamp() + v_most * interval '1 millisecond';
    PERFORM set_config('lock_timeout', v_most::text, true);
    FOREACH v_table IN ARRAY v_tables LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_table);
        PERFORM set_config('lock_timeout', greatest(
            ceil(date_part('epoch', v_until - clock_timestamp()) * 1000), least(v_most, 10))::integer::text, true);
    END LOOP;
END
$apply$
