"""How a chaos run tells its processes, by their environment, where they belong."""

from __future__ import annotations

SCHEMA = "PIECEWORK_CHAOS_SCHEMA"
"""The schema of this run. Set before the module `work` is imported."""
LEDGER = "PIECEWORK_CHAOS_LEDGER"
"""The file in which runs enter their begin and end, and spawners what was accepted."""
