"""A worker process with a batched job type: `python app.py DSN`. Its first batch kills it."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from batched.helpers import Doc

from piecework import BatchOutcomes, CurrentBatch, JobFunction, Jobs, LivenessSettings, WorkerSettings

SETTINGS = WorkerSettings(liveness=LivenessSettings.scaled(timedelta(seconds=1.5)))


def make(dsn: str, *, deadly: bool) -> tuple[Jobs, JobFunction[[Doc], int, ..., object]]:
    jobs = Jobs(dsn)

    @jobs.batched
    async def index(batch: CurrentBatch[Doc]) -> BatchOutcomes[int]:
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch.outcomes(lambda item: len(batch.items))

    return jobs, index


if __name__ == "__main__":
    made, _ = make(sys.argv[1], deadly=True)
    made.run_worker(SETTINGS)
