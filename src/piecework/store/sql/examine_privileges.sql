-- The privileges that the role lacks on what is there of the schema.
-- returns: privilege text, for_partitions boolean (it is needed to make the daily leaves of the history, not to work)
WITH relations AS (
    SELECT c.oid, c.relname, c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = /*schema_text*/ AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
SELECT 'USAGE on the schema', false FROM pg_namespace n
WHERE n.nspname = /*schema_text*/ AND NOT has_schema_privilege(n.oid, 'USAGE')
UNION ALL
SELECT v.verb || ' on ' || r.relname, false
FROM relations r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS v (verb)
WHERE NOT has_table_privilege(r.oid, v.verb) AND (v.verb = 'SELECT' OR r.relname NOT IN ('migrations', 'functions'))
UNION ALL
SELECT 'EXECUTE on ' || p.proname, false FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = /*schema_text*/ AND NOT has_function_privilege(p.oid, 'EXECUTE')
UNION ALL
SELECT 'CREATE on the schema', true FROM pg_namespace n
WHERE n.nspname = /*schema_text*/ AND NOT has_schema_privilege(n.oid, 'CREATE')
UNION ALL
SELECT 'the rights of the owner of ' || r.relname, true FROM relations r
WHERE r.relname IN ('finished_jobs', 'attempts') AND NOT pg_has_role(r.relowner, 'USAGE')
ORDER BY 2, 1 DESC  -- USAGE comes first: without it the others are of no use
