-- Settle claims of a worker whose jobs have concurrency keys.
-- params:  $1 worker uuid, $2 ids uuid[], $3 claim_nos integer[], $4 moves text[], $5 ages bigint[], $6 details text,
--          $7 queues text[], $8 keys text[]
-- returns: text (JSON array, see functions/settle_keyed_1.sql)
SELECT /*schema.*/settle_keyed_1($1::uuid, $2::uuid[], $3::integer[], $4::text[], $5::bigint[], $6::text, $7::text[], $8::text[])
