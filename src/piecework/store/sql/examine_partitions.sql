-- The daily leaves of the history that are missing, from today on.
-- params:  $1 days integer
-- returns: name text, days integer (from today)
SELECT leaf.name, leaf.days FROM (
    SELECT p.parent, n.days,
           p.parent || to_char((clock_timestamp() AT TIME ZONE 'UTC')::date + n.days, '_YYYYMMDD') AS name
    FROM unnest(ARRAY['finished_jobs', 'attempts']) AS p (parent) CROSS JOIN generate_series(0, $1::integer) AS n (days)
) AS leaf
WHERE NOT EXISTS (
    SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(quote_ident(/*schema_text*/) || '.' || leaf.parent) AND c.relname = leaf.name)
ORDER BY leaf.days, leaf.name
