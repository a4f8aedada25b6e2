-- Install a function where it is missing or of another text, and record it. A newer schema keeps its own. What runs with the
-- rights of its owner is for those to whom it is granted, not for everybody as functions are by default.
-- params:  $1 version integer (of the schema that this function is written for), $2 name text, $3 checksum text, $4 text text
DO $apply$
DECLARE
    v_definer regprocedure;
BEGIN
    IF (SELECT max(m.version) FROM /*schema.*/migrations m) <= $1
        AND NOT EXISTS (SELECT FROM /*schema.*/functions f WHERE f.name = $2 AND f.checksum = $3)
    THEN
        EXECUTE $4;
        SELECT p.oid INTO v_definer FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = /*schema_text*/ AND p.proname = $2 AND p.prosecdef;
        IF FOUND THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_definer);
        END IF;
        INSERT INTO /*schema.*/functions (name, checksum) VALUES ($2, $3)
        ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, installed_at = clock_timestamp();
    END IF;
END
$apply$
