-- Wait for no lock for longer than half a second from here on: whoever waits for a table has all others wait behind. What the
-- caller had is kept, and counts where it is shorter.
-- returns: pid integer, of this session; text; text
SELECT pg_backend_pid(),
       set_config('piecework.lock_timeout',
                  coalesce(nullif(current_setting('piecework.lock_timeout', true), ''), s.setting), true),
       set_config('lock_timeout', least(nullif(s.setting::integer, 0), 500)::text, true)
FROM pg_settings s WHERE s.name = 'lock_timeout'
