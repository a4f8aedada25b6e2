-- What a session of the application's or of a pooler may have set otherwise, for one transaction: the driver reads moments
-- and numbers in their plain form (invariant D).
-- returns: text, once per setting
SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),
       set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true)
