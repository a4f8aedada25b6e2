from __future__ import annotations

from engine.fixtures import app, jobs, ledger, workers  # noqa: F401
