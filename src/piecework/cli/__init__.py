"""The command line: one of the faces of the house."""
