-- Apply a migration where it is missing, and record it.
-- params:  $1 version integer, $2 name text, $3 checksum text, $4 supports integer, $5 text text
DO $apply$
DECLARE
    v_applied text := (SELECT m.checksum FROM /*schema.*/migrations m WHERE m.version = $1);
BEGIN
    IF v_applied IS NULL THEN
        EXECUTE $5;
        INSERT INTO /*schema.*/migrations (version, name, checksum, supports) VALUES ($1, $2, $3, $4);
    ELSIF v_applied <> $3 THEN
        RAISE EXCEPTION 'piecework: the migration % was applied from another text than this one', $2
            USING HINT = 'Take the piecework release that migrated this database, or a later one.';
    END IF;
END
$apply$
