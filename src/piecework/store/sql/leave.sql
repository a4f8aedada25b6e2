-- Strike off a worker that stops in order.
-- params:  $1 worker uuid
-- returns: boolean
SELECT /*schema.*/leave_1($1::uuid)
