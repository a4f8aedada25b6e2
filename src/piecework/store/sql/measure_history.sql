-- What came of all jobs of a bench. Walks over all of them.
-- returns: text (JSON object, see store/measuring.py, History)
WITH joined AS (
    SELECT max(w.first) AS at FROM (
        SELECT min(f.started_at) AS first FROM /*schema.*/finished_jobs f GROUP BY f.worker_id) AS w)
SELECT json_build_object(
    'live', (SELECT count(*) FROM /*schema.*/jobs),
    'finished', count(*), 'different', count(DISTINCT f.id),
    'completed', count(*) FILTER (WHERE f.status = 'completed'),
    'seconds', coalesce(date_part('epoch', max(f.finished_at) - min(f.started_at)), 0),
    'seconds_since_created', coalesce(date_part('epoch', max(f.finished_at) - min(f.created_at)), 0),
    'seconds_together', coalesce(date_part('epoch', max(f.finished_at) - (SELECT j.at FROM joined j)), 0),
    'finished_together', count(*) FILTER (WHERE f.finished_at > (SELECT j.at FROM joined j)),
    'waits', percentile_disc(ARRAY[0.5, 0.9, 0.99, 0.999, 1.0])
        WITHIN GROUP (ORDER BY date_part('epoch', f.started_at - f.created_at)))::text
FROM /*schema.*/finished_jobs f
