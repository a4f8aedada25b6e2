-- By what due times go.
-- returns: now timestamptz, manual boolean (it stands still, until somebody turns it)
SELECT coalesce((SELECT c.now FROM /*schema.*/clock c WHERE c.one), clock_timestamp()),
       EXISTS (SELECT FROM /*schema.*/clock c WHERE c.one)
