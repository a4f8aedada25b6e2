"""All SQL, and the only floor that knows PostgreSQL (the embedded server included)."""
