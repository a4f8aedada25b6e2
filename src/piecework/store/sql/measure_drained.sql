-- Whether no job is live.
-- returns: drained boolean
SELECT NOT EXISTS (SELECT FROM /*schema.*/jobs)
