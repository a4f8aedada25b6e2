-- Cancel jobs, or request it of the workers that run them.
-- params:  $1 ids uuid[]
-- returns: id uuid, answer text 'cancelled' | 'requested', of each that has not ended
SELECT * FROM /*schema.*/cancel_1($1::uuid[], false)
