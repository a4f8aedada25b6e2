-- Which database of which server this is.
-- returns: database text, since double precision (when the server was started, seconds since 1970)
SELECT current_database(), date_part('epoch', pg_postmaster_start_time())
