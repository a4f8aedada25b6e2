"""What helps to test an application that uses piecework."""

from __future__ import annotations

from piecework.testing.clock import ManualClock as ManualClock
from piecework.testing.connection import Connection as Connection
from piecework.testing.faults import Direction as Direction
from piecework.testing.faults import Moment as Moment
from piecework.testing.faults import Trap as Trap
from piecework.testing.in_memory import in_memory as in_memory
from piecework.testing.proxy import FaultProxy as FaultProxy
from piecework.testing.recorded_job import RecordedJob as RecordedJob
from piecework.testing.recorded_job import current_job as current_job

__all__ = [
    "Connection", "Direction", "FaultProxy", "ManualClock", "Moment", "RecordedJob", "Trap", "current_job",
    "in_memory",
]  # fmt: skip
