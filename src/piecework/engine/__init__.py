"""The loops of a worker: the only floor with running tasks."""
