-- The schema that holds everything of piecework. Where it is there no privilege on the database is needed.
DO $apply$
BEGIN
    IF to_regnamespace(quote_ident(/*schema_text*/)) IS NULL THEN
        CREATE SCHEMA /*schema*/;
    END IF;
END
$apply$
