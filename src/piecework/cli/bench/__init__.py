"""`piecework bench`: how fast it is on a database of the user's."""
