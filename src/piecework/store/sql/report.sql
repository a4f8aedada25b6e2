-- Store what a run reports of itself.
-- params:  $1 report text (JSON, see functions/report_1.sql)
-- returns: text (JSON array, see functions/report_1.sql), null when it is stored
SELECT /*schema.*/report_1($1::text)
