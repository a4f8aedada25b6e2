-- Let due times go by the real time again. Workers look.
-- returns: nothing
WITH cleared AS (DELETE FROM /*schema.*/clock)
SELECT pg_notify(/*channel*/, '"look"')
