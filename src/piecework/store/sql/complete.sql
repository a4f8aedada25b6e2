-- End claims in the current transaction.
-- params:  $1 completions text (JSON, see functions/complete_1.sql)
-- returns: text (JSON array, see functions/complete_1.sql), null when all are in place
SELECT /*schema.*/complete_1($1::text)
