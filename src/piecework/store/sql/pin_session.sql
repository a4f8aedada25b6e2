-- Worker statements rest on READ COMMITTED, and the driver reads moments and numbers in their plain form: a default of the
-- database or of the role must not reach them (invariant D).
-- returns: text, once per setting
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_read_only', 'off', false),
       set_config('timezone', 'UTC', false),
       set_config('datestyle', 'ISO', false),
       set_config('intervalstyle', 'postgres', false),
       set_config('extra_float_digits', '1', false)
