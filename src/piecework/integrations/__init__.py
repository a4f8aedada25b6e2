"""piecework inside of other tools. Nothing here is imported unless you import it, and each needs its tool alone."""
