-- Settle claims of a worker.
-- params:  $1 worker uuid, $2 ids uuid[], $3 claim_nos integer[], $4 moves text[], $5 ages bigint[], $6 details text
-- returns: text (JSON array, see functions/settle_1.sql), null when all landed
SELECT /*schema.*/settle_1($1::uuid, $2::uuid[], $3::integer[], $4::text[], $5::bigint[], $6::text)
