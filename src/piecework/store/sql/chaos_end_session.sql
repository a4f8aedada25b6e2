-- End a session.
-- params:  $1 pid integer
-- returns: whether it was there boolean
SELECT pg_terminate_backend($1::integer)
