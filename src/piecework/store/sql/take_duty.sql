-- Take one housekeeping duty that is due, if no other worker has it in hand.
-- params:  $1 worker uuid
-- returns: name text
UPDATE /*schema.*/duties SET next_at = clock_timestamp() + every, ran_by = $1::uuid
WHERE name = (SELECT d.name FROM /*schema.*/duties d WHERE d.next_at <= clock_timestamp()
                -- No key in use, nothing to sweep: an idle worker has nothing to do. By its place, so that the first row
                -- is found at once: of a table that it believes empty the planner would read the whole index first.
                AND (d.name <> 'concurrency_keys'
                     OR (SELECT true FROM /*schema.*/concurrency_keys k WHERE k.ctid >= '(0,0)' LIMIT 1))
              ORDER BY d.next_at, d.name LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING name
