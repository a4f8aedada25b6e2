from __future__ import annotations

from hypothesis import settings

# The verdict depends on the code alone: neither on chance nor on how busy the machine is.
settings.register_profile("piecework", derandomize=True, deadline=None)
settings.load_profile("piecework")
