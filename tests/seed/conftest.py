from __future__ import annotations

from engine.fixtures import app, gate, jobs, ledger, workers  # noqa: F401
from telemetry.conftest import seen  # noqa: F401
