-- Jobs by their ids, live or finished.
-- params:  $1 ids uuid[], $2 since timestamptz (jobs that ended before are not looked for)
-- returns: one row per known id, columns as store.reading.Row
SELECT * FROM /*schema.*/load_1($1::uuid[], $2::timestamptz)
