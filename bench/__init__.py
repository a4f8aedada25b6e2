"""Measures piecework beside a bare loop on the same driver and the same server: `python -m bench`."""
