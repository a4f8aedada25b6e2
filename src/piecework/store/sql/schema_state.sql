-- What is there of piecework, and who may add to it. Reads catalogs alone, so it works on an empty database.
-- returns: migrations boolean, functions boolean, there boolean, may_create boolean (the schema, or in it if it is there)
SELECT to_regclass(quote_ident(/*schema_text*/) || '.migrations') IS NOT NULL,
       to_regclass(quote_ident(/*schema_text*/) || '.functions') IS NOT NULL,
       n.oid IS NOT NULL,
       CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege(n.oid, 'CREATE') END
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = /*schema_text*/
