-- What is there of piecework, and who may add to it. Reads catalogs alone, so it works on an empty database.
-- returns: migrations boolean, functions boolean, there boolean, may_create boolean (the schema, or in it if it is there),
--          readable boolean (what is there of the two tables), may_spawn boolean
SELECT to_regclass(quote_ident(/*schema_text*/) || '.migrations') IS NOT NULL,
       to_regclass(quote_ident(/*schema_text*/) || '.functions') IS NOT NULL,
       n.oid IS NOT NULL,
       CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege(n.oid, 'CREATE') END,
       coalesce(has_table_privilege(to_regclass(quote_ident(/*schema_text*/) || '.migrations'), 'SELECT'), true)
       AND coalesce(has_table_privilege(to_regclass(quote_ident(/*schema_text*/) || '.functions'), 'SELECT'), true),
       coalesce(has_function_privilege(
           to_regprocedure(quote_ident(/*schema_text*/) || '.spawn_1(text)'), 'EXECUTE'), false)
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = /*schema_text*/
