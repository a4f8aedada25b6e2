-- For sessions that are lent to runs for their own writes: what these rest on must not be a default of the database or the
-- role (invariant D), and a transaction that is left open ends by itself, since it keeps its job from being rescued.
-- params:  $1 told integer (see sql/pin_session.sql)
-- returns: own boolean, whether the session is this connection's; plain boolean, the same; text, once per setting
SELECT s.own,
       s.own,
       CASE WHEN s.own THEN set_config('default_transaction_isolation', 'read committed', false) END,
       CASE WHEN s.own THEN set_config('default_transaction_read_only', 'off', false) END,
       CASE WHEN s.own THEN set_config('idle_in_transaction_session_timeout', '5min', false) END
FROM (SELECT pg_backend_pid() = $1::integer AS own) AS s
