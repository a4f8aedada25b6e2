-- Where the schema's own version is kept. The first statement of every schema.
CREATE TABLE IF NOT EXISTS /*schema.*/migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    supports   integer     NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
