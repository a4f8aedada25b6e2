-- The migrations that this schema has.
-- returns: version integer, name text, checksum text, supports integer
SELECT version, name, checksum, supports FROM /*schema.*/migrations ORDER BY version
