"""piecework beside other job queues on PostgreSQL, each in an environment of its own: `python -m bench compare`."""
