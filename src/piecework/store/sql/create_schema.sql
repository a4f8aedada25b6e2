-- The schema that holds everything of piecework.
CREATE SCHEMA IF NOT EXISTS /*schema*/
