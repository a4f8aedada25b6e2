-- How many attempts ended otherwise than in completion, by how.
-- returns: move text, count bigint
SELECT move, count(*) FROM /*schema.*/attempts GROUP BY 1 ORDER BY 1
