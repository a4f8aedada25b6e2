-- The versioned functions that this schema has.
-- returns: name text, checksum text
SELECT name, checksum FROM /*schema.*/functions ORDER BY name
