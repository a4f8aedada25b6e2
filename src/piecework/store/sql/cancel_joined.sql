-- Cancel jobs in the caller's own transaction.
-- params:  $1 ids text (JSON array)
-- returns: text (JSON array of answers, see functions/cancel_joined_1.sql)
SELECT /*schema.*/cancel_joined_1($1::text)
