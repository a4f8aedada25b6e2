-- Have this session tell what it did at the end of this statement, and not within the next seconds.
-- returns: void
SELECT pg_stat_force_next_flush()
