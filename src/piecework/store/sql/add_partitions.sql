-- Make missing leaves of the history.
-- params:  $1 days integer
-- returns: integer
SELECT /*schema.*/add_partitions_1($1::integer)
