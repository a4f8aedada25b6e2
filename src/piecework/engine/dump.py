"""What a worker does at this moment, as text: for whoever wonders why it hangs. It asks the database nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from piecework.engine.executor import Executor
from piecework.engine.heartbeat import Heartbeat
from piecework.model.settings import LivenessSettings

_FRAMES_OF_THREAD, _FRAMES_OF_TASK = 12, 4
_MOST = 1000


@contextmanager
def printed_on_signal(dump: Callable[[], str]) -> Generator[None]:
    """Print `dump()` to stderr at each SIGUSR1, within. Main thread only.

    The main thread prints between two of its steps, whatever it does: the event loop may be what hangs.
    """

    def print_it(number: int, frame: FrameType | None) -> None:
        try:
            text = dump()
        except Exception:
            text = traceback.format_exc()
        _write(text.encode())

    before = signal.signal(signal.SIGUSR1, print_it)
    signal.siginterrupt(signal.SIGUSR1, False)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _write(data: bytes) -> None:
    # Past sys.stderr: the signal may have come in the middle of a write to it, and it cannot be entered again.
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass  # nobody reads it


def describe(
    loop: asyncio.AbstractEventLoop,
    executor: Executor,
    heartbeat: Heartbeat,
    liveness: LivenessSettings,
    connections: Mapping[str, str],
) -> str:
    """Return the lease, the claims, the connections, the tasks and the threads of a worker, line by line.

    Args:
        connections: what each connection does, by what it is for.
    """
    lines = [f"piecework worker {heartbeat.worker_id}, process {os.getpid()} on {socket.gethostname()}"]
    lines += _lease(heartbeat, liveness)
    lines += _claims(executor, loop.time())
    lines += ["connections:", *(f"  {name}: {what}" for name, what in connections.items())]
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    lines += [f"tasks: {len(tasks)}", *(f"  {task.get_name()}: {_place(task)}" for task in tasks[:_MOST])]
    lines += _threads()
    return "\n".join([*lines, f"end of what worker {heartbeat.worker_id} does", ""])


def _lease(heartbeat: Heartbeat, liveness: LivenessSettings) -> Iterable[str]:
    age = time.monotonic() - heartbeat.sent

    def left(deadline: timedelta) -> str:
        seconds = deadline.total_seconds() - age
        return f"in {seconds:.1f} s" if seconds > 0 else f"since {-seconds:.1f} s"

    yield f"lease: the last answered beat was sent {age:.1f} s ago" + (", draining" if heartbeat.draining else "")
    yield f"  runs are stopped {left(liveness.stop)}, what still runs ends with the process {left(liveness.exit)},"
    yield f"  others take over {left(liveness.lease)}, if no beat is answered"
    counters = heartbeat.counters
    yield f"  lost settles: {counters.lost_settles}, stops: {counters.stops}"


def _claims(executor: Executor, now: float) -> Iterable[str]:
    held = list(executor.held.values())
    yield f"claims in hand: {len(held)}"
    for each in held[:_MOST]:
        job = each.job
        where = "in a thread" if each.in_thread else "on the loop"
        if each.started is None:
            doing = "waits to begin"
        elif each.running:
            doing = f"runs {where} for {now - each.started:.1f} s"
        else:
            doing = f"settles, began {now - each.started:.1f} s ago"
        stopped = f", stopped ({each.stop})" if each.stop is not None else ""
        yield f"  {job.id} {job.job_type} attempt {job.attempt} claim {job.claim_no}: {doing}{stopped}"


def _place(task: asyncio.Task[object]) -> str:
    """Say where a task waits, innermost first."""
    frames: list[str] = []
    awaited: object = task.get_coro()
    while awaited is not None:
        frame: object = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        frame = frame or getattr(awaited, "ag_frame", None)
        if isinstance(frame, FrameType):
            frames.append(_line(frame))
        following: object = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
        awaited = following or getattr(awaited, "ag_await", None)
    if not frames:
        return "has ended" if task.done() else "nowhere"
    return " < ".join(reversed(frames[-_FRAMES_OF_TASK:]))


def _threads() -> Iterable[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    stacks = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # documented, and there is no other way
    yield f"threads: {len(stacks)}"
    for ident in sorted(stacks, key=lambda ident: (ident != main, names.get(ident, "")))[:_MOST]:
        yield f"  {names.get(ident, 'of unknown name')}"
        yield from (f"    {_line(frame)}" for frame in _stack(stacks[ident])[:_FRAMES_OF_THREAD])


def _stack(frame: FrameType | None) -> list[FrameType]:
    """Return the frames of a thread, innermost first, without those of who asks."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        if frame.f_code.co_filename == __file__:
            frames.clear()
        frame = frame.f_back
    return frames


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
