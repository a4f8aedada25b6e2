-- How many sessions of the processes of a bench there are: they bear the schema's name.
-- returns: sessions bigint
SELECT count(*) FROM pg_stat_activity a WHERE a.application_name = /*schema_text*/
