-- Commit what a printed script did, all or nothing.
COMMIT
