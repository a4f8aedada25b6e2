-- Install a function where it is missing or of another text, and record it. A newer schema keeps its own.
-- params:  $1 version integer (of the schema that this function is written for), $2 name text, $3 checksum text, $4 text text
DO $apply$
BEGIN
    IF (SELECT max(m.version) FROM /*schema.*/migrations m) <= $1
        AND NOT EXISTS (SELECT FROM /*schema.*/functions f WHERE f.name = $2 AND f.checksum = $3)
    THEN
        EXECUTE $4;
        INSERT INTO /*schema.*/functions (name, checksum) VALUES ($2, $3)
        ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, installed_at = clock_timestamp();
    END IF;
END
$apply$
