from __future__ import annotations

from engine.fixtures import jobs, ledger  # noqa: F401
