-- Send an empty notification.
-- params:  $1 channel text
-- returns: nothing
SELECT pg_notify($1::text, '')
