"""What would hold piecework back on a larger machine, computed from what was measured on this one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.growth.measure import WAIT
from bench.growth.run import SPAWN, Result

GROUP_COMMIT = "LWLock WALWrite"
"""Waits for a flush that another session makes: it serves all who wait, so they are no queue."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a job costs in its whole life, spawned in bulk, claimed, run and settled. CPU in µs."""

    spawner: float
    spawning: float
    """CPU of the server for its spawn."""
    worker: float
    claim: float
    """CPU of the session that claims."""
    settle: float
    rest: float
    """CPU of all other processes of the server."""
    wal_bytes: float
    flushes: float
    """Of the log to the disk, per job."""
    flush_seconds: float
    rate: float
    """Jobs per second at which the sessions were watched."""
    busy: float
    """The part of the cores that was in use then."""
    stretch: float
    """How many processes shared a core then: as much longer a lock was held."""
    waiting: Mapping[str, float]
    """How many sessions waited for a lock then, on average, by lock."""

    @property
    def server(self) -> float:
        """CPU of the server."""
        return self.spawning + self.claim + self.settle + self.rest


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine that is to be judged."""

    cores: int
    wal_bytes_per_s: float


class Limit(NamedTuple):
    """Something that holds the rate back."""

    what: str
    jobs_per_s: float


def limits(costs: Costs, machine: Machine, *, alone: bool) -> list[Limit]:
    """The limits of a machine, the lowest first.

    Args:
        alone: whether the machine has nothing but PostgreSQL on it, and workers and spawners run elsewhere.
    """
    per_job = costs.server + (0 if alone else costs.spawner + costs.worker)
    found = [
        Limit("CPU", machine.cores * costs.busy * 1e6 / per_job),
        Limit("WAL", machine.wal_bytes_per_s / costs.wal_bytes),
        Limit("flushes", 1 / (costs.flushes * costs.flush_seconds)),
        *(Limit(lock, rate) for lock, rate in locks(costs)),
    ]
    return sorted(found, key=lambda limit: limit.jobs_per_s)


def locks(costs: Costs) -> Iterator[tuple[str, float]]:
    """At which rate each lock would be held all the time."""
    for lock, waiting in costs.waiting.items():
        if waiting > 0 and lock != GROUP_COMMIT:
            yield lock, costs.rate * costs.stretch / utilisation(waiting)


def utilisation(waiting: float) -> float:
    """How much of the time something is in use, if on average so many wait for it: u² ÷ (1 − u) do in a queue with one
    server and random arrivals."""
    return (math.sqrt(waiting * waiting + 4 * waiting) - waiting) / 2


def one_worker(costs: Costs) -> Limit:
    """What holds a single worker process back where cores are to spare: it has one, and so has each of its sessions."""
    return min(
        (Limit("its own CPU", 1e6 / costs.worker), Limit("its session that claims", 1e6 / costs.claim),
         Limit("its session that settles", 1e6 / costs.settle)),
        key=lambda limit: limit.jobs_per_s,
    )  # fmt: skip


def costs(result: Result) -> Costs | None:
    """The costs as they were measured, with the most processes; None where that is missing."""
    sizes = [int(name.split()[1]) for name in result["figures"] if name.startswith("processes")]
    rounds = [each for each in result["figures"].get(f"processes {max(sizes, default=0)}", ()) if each]
    spawns = [each for each in result["figures"].get(SPAWN, ()) if each]
    if not rounds or not spawns:
        return None
    cores = float(str(result["machine"]["cores"]))

    def of(key: str, given: Sequence[Mapping[str, float | None]] = rounds) -> float:
        return statistics.median(float(each.get(key) or 0) for each in given)

    claim, settle = of("claim cpu_us"), of("settle cpu_us")
    in_use = of("jobs_per_s") * (of("worker_cpu_us") + of("server_cpu_us")) / 1e6
    names = {key.removeprefix(WAIT) for each in rounds for key in each if key.startswith(f"{WAIT}L")}
    return Costs(
        spawner=of("bulk_client_cpu_us", spawns), spawning=of("bulk_server_cpu_us", spawns),
        worker=of("worker_cpu_us"), claim=claim, settle=settle, rest=max(of("server_cpu_us") - claim - settle, 0),
        wal_bytes=of("bulk_wal_bytes", spawns) + of("wal_bytes"), flushes=of("flushes"),
        flush_seconds=result["flush_seconds"], rate=of("jobs_per_s"), busy=min(in_use / cores, 1),
        stretch=max(of("runnable") / cores, 1), waiting={name: of(f"{WAIT}{name}") for name in sorted(names)},
    )  # fmt: skip
