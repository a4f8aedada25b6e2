-- What a worker owns, for the comparison with what it runs (invariant J).
-- params:  $1 worker uuid
-- returns: id text, claim_no integer
SELECT id::text, claim_no FROM /*schema.*/jobs WHERE worker_id = $1::uuid ORDER BY id
