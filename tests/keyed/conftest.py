from __future__ import annotations

from engine.fixtures import app, gate, jobs, ledger, workers  # noqa: F401
