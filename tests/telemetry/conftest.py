from __future__ import annotations

from engine.fixtures import jobs  # noqa: F401
