"""How the bench tells its processes, by their environment, where they belong."""

from __future__ import annotations

SCHEMA = "PIECEWORK_BENCH_SCHEMA"
"""The schema of this run."""
FOLDER = "PIECEWORK_BENCH_FOLDER"
"""Where each process keeps its meter."""
