-- Whether the schema has a ledger of test jobs.
-- returns: has boolean
SELECT to_regclass(quote_ident(/*schema_text*/) || '.history_ledger') IS NOT NULL
