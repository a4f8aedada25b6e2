-- The privileges that a worker's role lacks on what is there of the schema.
-- returns: privilege text
WITH relations AS (
    SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = /*schema_text*/ AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
SELECT 'USAGE on the schema' FROM pg_namespace n
WHERE n.nspname = /*schema_text*/ AND NOT has_schema_privilege(n.oid, 'USAGE')
UNION ALL
SELECT v.verb || ' on ' || r.relname
FROM relations r CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS v (verb)
WHERE NOT has_table_privilege(r.oid, v.verb) AND (v.verb = 'SELECT' OR r.relname NOT IN ('migrations', 'functions'))
UNION ALL
SELECT 'EXECUTE on ' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = /*schema_text*/ AND NOT has_function_privilege(p.oid, 'EXECUTE')
ORDER BY 1 DESC  -- USAGE comes first: without it the others are of no use
