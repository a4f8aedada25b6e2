"""What the figures of a shape mean: whether every job ran once, and what kept it from being faster. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from piecework.store.measuring import History

LimitKind: TypeAlias = Literal["client CPU", "server CPU", "other CPU", "commits", "round trips", "server or network"]

_BUSY = 0.85
"""A process that uses so much of a core does nothing else: asyncio is one thread."""
_FULL = 0.9
_WAITING = 0.5


def find_problems(spawned: int, ran: int, history: History) -> list[str]:
    """Hold the history of a shape against what was counted; nothing is returned if each job ran once.

    Args:
        spawned: jobs whose spawn was answered.
        ran: executions, as the workers counted them.
        history: after the workers have ended.
    """
    problems: list[str] = []
    there = history.live + history.finished
    if history.different != history.finished:
        problems.append(f"{history.finished - history.different:,} rows of the history are of a job that has another")
    if there != spawned:
        problems.append(f"{spawned:,} jobs were spawned, {there:,} are there")
    if history.completed != history.finished:
        problems.append(f"{history.finished - history.completed:,} jobs ended otherwise than in completion")
    if ran != history.finished:
        problems.append(f"{history.finished:,} jobs are in the history, {ran:,} times one ran")
    return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a shape asked of everybody."""

    seconds: float
    worker: float = 0.0
    """How much of one core the busiest worker process used."""
    spawner: float = 0.0
    clients: float
    """Cores that all processes of the bench used together."""
    server: float | None
    """Cores that the server used; None: not known here, since it runs elsewhere."""
    busy: float | None
    """Cores of this machine that were busy, with whatever; None: not known."""
    cores: int
    """Of this machine."""
    commits: int
    callers: int
    """Connections that commit at once."""
    commit: float
    """Seconds that a commit waits, besides its round trip."""
    round_trip: float


class Limit(NamedTuple):
    """Where the limit was."""

    kind: LimitKind
    text: str
    advice: str


def find_limit(load: Load) -> Limit:
    """Say what kept a shape from being faster, and what would help."""
    busiest = max(load.worker, load.spawner)
    used = load.clients + (load.server or 0.0)
    if max(used, load.busy or 0.0) >= _FULL * load.cores:
        return _full_machine(load)
    if busiest >= _BUSY:
        return _busy_client(load)
    return _waits(load, busiest)


def _full_machine(load: Load) -> Limit:
    server = 0.0 if load.server is None else load.server
    others = max((load.busy or 0.0) - load.clients - server, 0.0)
    parts = [f"{load.clients:.1f} by the clients"]
    if load.server is None:
        parts.append(f"{others:.1f} by others, the server perhaps among them")
    else:
        parts += [f"{server:.1f} by the server", f"{others:.1f} by others"]
    text = f"the cores of this machine ({load.cores}) are used up, {', '.join(parts)}"
    if others > max(load.clients, server):
        return Limit("other CPU", text, "run this when the machine is quiet, or on another one")
    if server > load.clients:
        return Limit("server CPU", text, "give the server cores of its own: run the workers on another machine")
    return Limit("client CPU", text, "run workers on another machine: more processes on this one will not help")


def _busy_client(load: Load) -> Limit:
    if load.spawner > load.worker:
        text = f"the process that spawns used {load.spawner:.0%} of a core"
        return Limit("client CPU", text, "spawn from several processes, and by `spawn_all`")
    text = f"a worker process used {load.worker:.0%} of a core"
    return Limit("client CPU", text, "run more worker processes: --processes, here and of `piecework worker`")


def _waits(load: Load, busiest: float) -> Limit:
    """Say what those waited for who were not busy."""
    each = load.commits / load.callers / load.seconds if load.seconds > 0 else 0.0
    # Both were measured alone, when the shape had not begun.
    commits, trips = min(each * load.commit, 1.0), min(each * load.round_trip, 1.0)
    # Of one caller, who does one thing after the other, the largest part counts.
    least = max(busiest, 0.25) if load.callers == 1 else _WAITING
    if commits >= max(least, trips):
        return Limit(
            "commits", f"about {commits:.0%} of the time went by in commits, each of {load.commit * 1e3:.2f} ms",
            "a faster disk for the write-ahead log; more jobs per commit (`spawn_all`), or more callers at once",
        )  # fmt: skip
    if trips >= least:
        return Limit(
            "round trips",
            f"about {trips:.0%} of the time went by in round trips, each of {load.round_trip * 1e3:.2f} ms",
            "run it nearer to the server; more jobs per call (`spawn_all`), or more callers at once",
        )  # fmt: skip
    if load.callers == 1 and busiest >= (load.server or 0.0):
        return Limit(
            "client CPU", f"one caller, who used {busiest:.0%} of a core and waited for the rest",
            "more jobs per call (`spawn_all`), or more callers at once",
        )  # fmt: skip
    known = "not known here" if load.server is None else f"{load.server:.1f} cores"
    return Limit(
        "server or network",
        f"the clients used {load.clients:.1f} cores, the server's CPU: {known}; commits took {commits:.0%} of the time",
        "look at the server's CPU and disk while this runs; try more --processes",
    )  # fmt: skip
