-- For sessions that are lent to runs for their own writes: what these rest on must not be a default of the database or the
-- role (invariant D), and a transaction that is left open ends by itself, since it keeps its job from being rescued.
-- returns: text, once per setting
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_read_only', 'off', false),
       set_config('idle_in_transaction_session_timeout', '5min', false)
