-- How many jobs were taken back from lost workers of late. The statement's own time lets leaves be left out.
-- returns: last_hour bigint, last_day bigint
SELECT count(*) FILTER (WHERE a.ended_at > statement_timestamp() - interval '1 hour'), count(*)
FROM /*schema.*/attempts a WHERE a.move = 'rescue' AND a.ended_at > statement_timestamp() - interval '1 day'
