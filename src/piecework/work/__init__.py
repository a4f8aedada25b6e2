"""What application code holds: job functions, spawners, handles, the current job."""
