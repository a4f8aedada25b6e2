-- The job of a key: the live one, else the one that was spawned last.
-- params:  $1 job_types text[] (a job type and its former names), $2 key text
-- returns: id uuid, or no row
SELECT found.id FROM (
    SELECT j.id, true AS live FROM /*schema.*/jobs j WHERE j.job_type = ANY ($1::text[]) AND j.key = $2::text
    UNION ALL
    SELECT newest.id, false FROM unnest($1::text[]) AS name (job_type)
    CROSS JOIN LATERAL (
        SELECT f.id FROM /*schema.*/finished_jobs f
        WHERE f.job_type = name.job_type AND f.key = $2::text ORDER BY f.id DESC LIMIT 1) AS newest
) AS found
ORDER BY found.live DESC, found.id DESC LIMIT 1
