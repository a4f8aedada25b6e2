-- The server's clock.
-- returns: seconds since 1970 double precision
SELECT date_part('epoch', clock_timestamp())
