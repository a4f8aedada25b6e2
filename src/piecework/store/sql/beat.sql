-- A sign of life, and what an observer sees of the others. No clock is compared.
-- params:  $1 id uuid, $2 draining boolean, $3 job_types text[], $4 counters jsonb (null: as they are)
-- returns: beat_no bigint (null: the worker was given up for dead), others text: JSON array of [id, beat_no, lease in seconds],
--          requests text: JSON array of [id, claim_no], the jobs of the worker that are to be cancelled; null: none
WITH own AS (
    UPDATE /*schema.*/workers
    SET beat_no = beat_no + 1, beat_at = clock_timestamp(), draining = $2::boolean, job_types = $3::text[],
        counters = coalesce($4::jsonb, counters)
    WHERE id = $1::uuid AND given_up_at IS NULL
    RETURNING beat_no)
SELECT (SELECT beat_no FROM own),
       (SELECT coalesce(json_agg(json_build_array(w.id, w.beat_no, date_part('epoch', w.lease)) ORDER BY w.id), '[]')::text
        FROM /*schema.*/workers w WHERE w.id <> $1::uuid),
       /*schema.*/requests_1($1::uuid)
