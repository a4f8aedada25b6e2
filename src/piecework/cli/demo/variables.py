"""How the demo tells its worker processes, by their environment, where they belong."""

from __future__ import annotations

SCHEMA = "PIECEWORK_DEMO_SCHEMA"
"""The schema of this run. Set before the module `work` is imported."""
LEDGER = "PIECEWORK_DEMO_LEDGER"
"""The file that every run of a job's body is recorded in."""
