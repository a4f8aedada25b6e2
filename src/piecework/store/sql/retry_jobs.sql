-- Bring finished jobs back.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: id uuid, holder uuid (see functions/retry_1.sql)
SELECT * FROM /*schema.*/retry_1($1::uuid[], $2::timestamptz)
