-- Record a function in the transaction that installed it.
-- params:  $1 name text, $2 checksum text
INSERT INTO /*schema.*/functions (name, checksum) VALUES ($1::text, $2::text)
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, installed_at = clock_timestamp()
