-- Cancel jobs that no worker holds.
-- params:  $1 ids uuid[]
-- returns: id uuid, of those cancelled
SELECT * FROM /*schema.*/cancel_1($1::uuid[])
