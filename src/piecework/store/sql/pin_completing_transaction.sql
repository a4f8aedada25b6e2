-- As sql/pin_completing.sql, for one transaction in a session that a pooler lends: the driver has begun it READ COMMITTED.
-- returns: text
SELECT set_config('idle_in_transaction_session_timeout', '5min', true)
