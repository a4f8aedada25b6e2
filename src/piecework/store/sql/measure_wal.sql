-- Bytes of write-ahead log since the beginning, of the whole server. Some hosted servers refuse.
-- returns: bytes bigint
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint
