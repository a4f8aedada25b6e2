-- Remove everything of piecework with all jobs, and the schema unless something else is in it.
-- params:  $1 tables text (names with commas between), $2 functions text (the same)
DO $apply$
DECLARE
    v_schema oid := to_regnamespace(quote_ident(/*schema_text*/));
    v_functions text[] := string_to_array($2, ',');
    v_names text;
BEGIN
    IF v_schema IS NULL THEN
        RETURN;
    END IF;
    IF to_regclass(quote_ident(/*schema_text*/) || '.functions') IS NOT NULL THEN
        v_functions := v_functions || ARRAY(SELECT f.name FROM /*schema.*/functions f); -- those of other releases
    END IF;
    SELECT string_agg(c.oid::regclass::text, ', ') INTO v_names FROM pg_class c
    WHERE c.relnamespace = v_schema AND c.relkind IN ('r', 'p')
      AND regexp_replace(c.relname, '_[0-9]{8}$', '') = ANY (string_to_array($1, ',')); -- leaves too
    IF v_names IS NOT NULL THEN
        EXECUTE 'DROP TABLE ' || v_names;
    END IF;
    SELECT string_agg(p.oid::regprocedure::text, ', ') INTO v_names FROM pg_proc p
    WHERE p.pronamespace = v_schema AND p.proname = ANY (v_functions);
    IF v_names IS NOT NULL THEN
        EXECUTE 'DROP FUNCTION ' || v_names;
    END IF;
    IF /*schema_text*/ <> 'public' THEN
        BEGIN
            DROP SCHEMA /*schema*/;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            NULL; -- it is the application's as well, or was made by somebody else
        END;
    END IF;
END
$apply$
