-- Strike off a worker that stops in order. While it still owns jobs its row stays, so that they can be rescued.
-- params:  $1 id uuid
-- returns: id uuid
DELETE FROM /*schema.*/workers w
WHERE w.id = $1::uuid AND NOT EXISTS (SELECT FROM /*schema.*/jobs j WHERE j.worker_id = $1::uuid)
RETURNING w.id
