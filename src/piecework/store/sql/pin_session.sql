-- Worker statements rest on READ COMMITTED; a default of the database must not reach them (invariant D).
-- returns: text, text
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_read_only', 'off', false)
