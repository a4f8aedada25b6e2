-- Whether piecework's tables are there. Reads catalogs alone, so it works on an empty database.
-- returns: migrations boolean, functions boolean, may_create boolean
SELECT to_regclass(quote_ident(/*schema_text*/) || '.migrations') IS NOT NULL, to_regclass(quote_ident(/*schema_text*/) || '.functions') IS NOT NULL,
       has_database_privilege(current_database(), 'CREATE')
