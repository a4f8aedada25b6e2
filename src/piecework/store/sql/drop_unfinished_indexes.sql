-- Drop what is left of indexes whose making was interrupted. Who makes one concurrently holds the lock that is asked for here,
-- so that what is being made is left alone.
-- params:  $1 names text: of indexes, with commas between
DO $apply$
DECLARE
    v_most text := current_setting('lock_timeout');
    v_index regclass;
    v_table regclass;
BEGIN
    FOR v_index, v_table IN
        SELECT i.indexrelid, i.indrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = to_regnamespace(quote_ident(/*schema_text*/))
          AND c.relname = ANY (string_to_array($1, ',')) AND NOT i.indisvalid
    LOOP
        PERFORM set_config(
            'lock_timeout', least(nullif(current_setting('piecework.lock_timeout')::integer, 0), 5000)::text, true);
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', v_table);
        PERFORM set_config('lock_timeout', v_most, true);
        IF EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = v_index AND NOT i.indisvalid) THEN
            BEGIN
                EXECUTE format('DROP INDEX %s', v_index);
            EXCEPTION WHEN internal_error THEN
                -- "tuple concurrently updated": whoever makes it gives that lock back a moment before it commits.
                RAISE lock_not_available USING MESSAGE = format('another one is about to finish the index %s', v_index);
            END;
        END IF;
    END LOOP;
END
$apply$
