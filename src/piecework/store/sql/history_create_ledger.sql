-- Make the table in which test jobs enter what they do, unless it is there.
CREATE TABLE IF NOT EXISTS /*schema.*/history_ledger (
    job_id   uuid        NOT NULL,
    event    text        NOT NULL CHECK (event IN ('began', 'ended', 'effect')),
    claim_no integer     NOT NULL,
    process  text        NOT NULL,
    well     boolean     NOT NULL DEFAULT true,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
)
