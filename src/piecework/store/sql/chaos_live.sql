-- How many jobs are live.
-- returns: count bigint
SELECT count(*) FROM /*schema.*/jobs
