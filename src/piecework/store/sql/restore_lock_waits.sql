-- Leave the rest of the transaction, which may be the caller's, with the limit that it had.
-- returns: text; text
SELECT set_config('lock_timeout', before.setting, true), set_config('piecework.lock_timeout', '', true)
FROM (SELECT current_setting('piecework.lock_timeout') AS setting) AS before
