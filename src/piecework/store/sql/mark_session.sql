-- Leave a mark in this session, and say whose mark was in it.
-- params:  $1 mark text
-- returns: before text, pid integer, now text
SELECT current_setting('piecework.mark', true), pg_backend_pid(), set_config('piecework.mark', $1::text, false)
