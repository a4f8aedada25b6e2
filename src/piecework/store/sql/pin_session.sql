-- Worker statements rest on READ COMMITTED, and the driver reads moments and numbers in their plain form: a default of the
-- database or of the role must not reach them (invariant D). A session that a pooler lends is left as it is: it is others',
-- too, and the next statement may run in another one. A statement that waits for a lock ends when its client is gone (where
-- the server can tell), instead of running whenever the lock is granted.
-- params:  $1 told integer: the process id that was told when the connection was opened; a pooler tells one of its own
-- returns: own boolean, whether the session is this connection's; plain boolean, whether statements may run in it as it
--          is (the zone does not matter: moments carry theirs); text, once per setting
SELECT s.own,
       s.own OR s.plain,
       CASE WHEN s.own THEN set_config('default_transaction_isolation', 'read committed', false) END,
       CASE WHEN s.own THEN set_config('default_transaction_read_only', 'off', false) END,
       CASE WHEN s.own THEN set_config('timezone', 'UTC', false) END,
       CASE WHEN s.own THEN set_config('datestyle', 'ISO', false) END,
       CASE WHEN s.own THEN set_config('intervalstyle', 'postgres', false) END,
       CASE WHEN s.own THEN set_config('extra_float_digits', '1', false) END,
       CASE WHEN s.own AND version() LIKE '%linux%' THEN set_config('client_connection_check_interval', '2s', false) END
FROM (SELECT pg_backend_pid() = $1::integer AS own,
             current_setting('default_transaction_isolation') = 'read committed'
             AND current_setting('default_transaction_read_only') = 'off'
             AND current_setting('datestyle') LIKE 'ISO,%'
             AND current_setting('intervalstyle') = 'postgres'
             AND current_setting('extra_float_digits')::integer >= 1 AS plain) AS s
