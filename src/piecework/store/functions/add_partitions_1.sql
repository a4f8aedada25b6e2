-- Make the daily leaves of finished_jobs and attempts, from yesterday to so many days ahead, where they are missing.
-- params:  $1 days integer
-- returns: integer, the number of leaves made
--
-- It runs with the rights of its owner, since only who owns a table attaches partitions to it: workers need no such right
-- (docs/security.md). The names in its dynamic SQL are its own. A caller chooses the number of days, up to a year.
CREATE OR REPLACE FUNCTION /*schema.*/add_partitions_1(p_days integer) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = /*schema*/, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    v_parent text;
    v_leaf text;
    v_day date;
    v_made integer := 0;
BEGIN
    FOREACH v_parent IN ARRAY ARRAY['finished_jobs', 'attempts'] LOOP
        FOR v_day IN SELECT (clock_timestamp()::date + n) FROM generate_series(-1, least(p_days, 366)) AS n LOOP
            v_leaf := v_parent || to_char(v_day, '_YYYYMMDD');
            CONTINUE WHEN to_regclass(quote_ident(/*schema_text*/) || '.' || quote_ident(v_leaf)) IS NOT NULL;
            -- One maker at a time. It is the lock that ATTACH takes, and unlike an advisory lock it makes whoever waited
            -- for it see the leaf that was made meanwhile.
            EXECUTE format('LOCK TABLE ONLY %I.%I IN SHARE UPDATE EXCLUSIVE MODE', /*schema_text*/, v_parent);
            CONTINUE WHEN to_regclass(quote_ident(/*schema_text*/) || '.' || quote_ident(v_leaf)) IS NOT NULL;
            -- ATTACH takes a lock that settles do not wait for; CREATE ... PARTITION OF takes one that they do.
            EXECUTE format(
                'CREATE TABLE %I.%I (LIKE %I.%I INCLUDING ALL) WITH (autovacuum_vacuum_insert_scale_factor = 0.2)',
                /*schema_text*/, v_leaf, /*schema_text*/, v_parent);
            EXECUTE format(
                'ALTER TABLE %I.%I ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                /*schema_text*/, v_parent, /*schema_text*/, v_leaf, v_day::timestamptz, (v_day + 1)::timestamptz);
            v_made := v_made + 1;
        END LOOP;
    END LOOP;
    RETURN v_made;
END
$$;
