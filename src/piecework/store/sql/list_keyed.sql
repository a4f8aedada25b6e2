-- The job of each key of a type: the live one, else the one that was spawned last. Walks over the kept history of its keys.
-- params:  $1 job_types text[] (a job type and its former names)
-- returns: key text, id uuid, by key in the order of their code points
SELECT DISTINCT ON (found.key) found.key, found.id FROM (
    SELECT j.key COLLATE "C" AS key, j.id, true AS live FROM /*schema.*/jobs j
    WHERE j.job_type = ANY ($1::text[]) AND j.key IS NOT NULL
    UNION ALL
    SELECT f.key COLLATE "C", f.id, false FROM /*schema.*/finished_jobs f
    WHERE f.job_type = ANY ($1::text[]) AND f.key IS NOT NULL
) AS found
ORDER BY found.key, found.live DESC, found.id DESC
