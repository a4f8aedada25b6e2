"""What piecework costs as work grows: over processes, backlog and concurrency keys, and a model of the rest."""
