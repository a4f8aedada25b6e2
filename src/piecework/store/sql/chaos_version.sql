-- The server's version.
-- returns: version text
SELECT current_setting('server_version')
