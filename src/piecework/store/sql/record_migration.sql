-- Record a migration in the transaction that applied it.
-- params:  $1 version integer, $2 name text, $3 checksum text, $4 supports integer
INSERT INTO /*schema.*/migrations (version, name, checksum, supports)
VALUES ($1::integer, $2::text, $3::text, $4::integer)
