"""The stress shapes: how much of a queue's rate is left when something is in its way."""
