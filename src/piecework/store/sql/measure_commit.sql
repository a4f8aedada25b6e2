-- The smallest write, for the wait of its commit. Only in a schema that is thrown away.
UPDATE /*schema.*/duties SET every = every WHERE name = 'partitions'
