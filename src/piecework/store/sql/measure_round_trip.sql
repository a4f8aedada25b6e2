-- Nothing, for its round trip.
-- returns: one integer
SELECT 1
