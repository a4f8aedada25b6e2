-- Which text of each versioned function is installed.
CREATE TABLE IF NOT EXISTS /*schema.*/functions (
    name         text        PRIMARY KEY,
    checksum     text        NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
