"""The stress shapes: what is in the way, who meets it, and which goal of the design it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.peers.contestants import Contestant
from bench.shapes import Figures
from bench.stress.horizon import drain_pinned, pace_pinned
from bench.stress.measure import OURS, judge
from bench.stress.rounds import (
    LEAST,
    Stage,
    beside_plain,
    held,
    history,
    jobs_in_the_way,
    steady_beside_plain,
    with_env,
)
from bench.stress.tables import Filling, text_of
from bench.stress.transaction import OPEN

DAYS = 86_400.0 * 7
TURNS = ("spawn", "completion", "key")
CONCURRENT = 5_000
WITHOUT_GOAL = 2  # rounds
KEYS_ARE_OURS = "its queues and locks mean something else than concurrency keys: not measured"
TAKES_LONG = "not run: it takes minutes for each; `--shape paced --contestant NAME` measures it"
KEEPS_NONE = "cannot: it keeps no history"
NO_TRANSACTION = "not run: the shape speaks piecework's own calls"
NOT_WRITTEN = "not run: the shape speaks of job types and workers as piecework has them"


class Bound(NamedTuple):
    """A goal: a figure, and what it is to reach."""

    key: str
    at_least: bool
    bound: float
    what: str = ""


Measure = Callable[[Stage, Contestant], Iterator[Figures]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One stress shape."""

    name: str
    title: str
    """With a place for each of `counts`."""
    measure: Measure
    counts: tuple[int, ...] = ()
    """What the scale changes."""
    rounds: int = 100
    """At most."""
    goals: tuple[Bound, ...] = ()
    others: str = ""
    """Why no other contestant meets it; empty: they do."""
    unable: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why single ones do not."""

    def left_out(self, who: Contestant) -> str | None:
        """Why a contestant does not meet it."""
        return None if who.name == OURS else self.others or self.unable.get(who.name)

    def shown(self, stage: Stage) -> str:
        """Its title with the numbers of this run."""
        return self.title.format(*(f"{stage.scaled(count):,}" for count in self.counts))


def _kept(factor: float) -> tuple[Bound, ...]:
    return (Bound("factor", True, factor),)


def _pending(stage: Stage, who: Contestant) -> Iterator[Figures]:
    return beside_plain(stage, who, once=jobs_in_the_way(1_000_000), refill=False)


def _future(stage: Stage, who: Contestant) -> Iterator[Figures]:
    return beside_plain(stage, who, once=jobs_in_the_way(100_000, delay=DAYS))


def _parked(stage: Stage, who: Contestant) -> Iterator[Figures]:
    return beside_plain(stage, who, once=held(100_000, keys=50), setting=with_env(who, BENCH_KNOWS="hold"))


def _keys(jobs: int, keys: int) -> Measure:
    def measure(stage: Stage, who: Contestant) -> Iterator[Figures]:
        count = max(stage.scaled(jobs), LEAST)
        filling = Filling(keys=count if keys == jobs else keys)
        return beside_plain(stage, who, filling=filling, count=count)

    return measure


def _types(stage: Stage, who: Contestant) -> Iterator[Figures]:
    filling = Filling(types=tuple(f"type-{number}" for number in range(5)))
    once, setting = jobs_in_the_way(10_000, types=("capped",)), with_env(who, BENCH_TYPES="50")
    return beside_plain(stage, who, once=once, filling=filling, setting=setting)


def _sleeping(stage: Stage, who: Contestant) -> Iterator[Figures]:
    """Beside jobs that sleep a millisecond: both pay for a timer, and what differs is how many are in flight."""
    long, short = (with_env(who, CONCURRENT, BENCH_PAUSE=pause) for pause in ("0.05", "0.001"))
    return beside_plain(stage, who, setting=long, plain_setting=short)


def _in_flight(count: int) -> Measure:
    return lambda stage, who: beside_plain(stage, who, once=held(count), setting=with_env(who, BENCH_KNOWS="hold"))


def _finished(stage: Stage, who: Contestant) -> Iterator[Figures]:
    return beside_plain(stage, who, once=history(10_000_000, of_peers=1_000_000), live=False)


def _payload(size: int, most: int) -> Measure:
    filling = Filling(text=text_of(size))

    def measure(stage: Stage, who: Contestant) -> Iterator[Figures]:
        count = min(stage.jobs(who), max(stage.scaled(most), LEAST))
        return beside_plain(stage, who, filling=filling, count=count)

    return measure


def _transaction(stage: Stage, who: Contestant) -> Iterator[Figures]:
    with stage.ring.database(who, "stress") as dsn:
        found = stage.ring.run(who, dsn, "transaction", rounds=stage.plan.rounds)
        judge(dsn, slack=2 * OPEN)
    for number, alone in enumerate(found["none"]):
        figures: Figures = {f"alone_{key}": alone[key] for key in ("spawn_ms", "start_ms", "life_ms")}
        for turn in TURNS:
            beside = found[turn][number]
            figures |= {f"{turn}_{key}": beside[key] for key in ("spawn_ms", "start_ms", "life_ms")}
            delays = [beside[key] - alone[key] for key in ("spawn_ms", "start_ms", "life_ms")]
            figures[f"{turn}_delay_ms"] = max(*delays, 0.0)
        yield figures


SHAPES = (
    Shape(name="pending", title="{} jobs pending, the first ones of them", counts=(1_000_000,), measure=_pending,
          goals=_kept(0.9)),
    Shape(name="future", title="{} jobs not yet due", counts=(100_000,), measure=_future, goals=_kept(0.9)),
    Shape(name="parked", title="{} jobs parked behind 50 concurrency keys", counts=(100_000,), measure=_parked,
          goals=_kept(0.9), others=KEYS_ARE_OURS),
    Shape(name="keys-shallow", title="{} concurrency keys of one job each", counts=(15_000,),
          measure=_keys(15_000, 15_000), goals=(Bound("jobs_per_s", True, 12_000, "jobs/s"),), others=KEYS_ARE_OURS),
    Shape(name="keys-deep", title="50 concurrency keys, {} jobs", counts=(100_000,), measure=_keys(100_000, 50),
          goals=(Bound("jobs_per_s", True, 40_000, "jobs/s"),), others=KEYS_ARE_OURS),
    Shape(name="types", title="50 job types: 5 with a backlog, one at its cap", measure=_types, others=NOT_WRITTEN,
          rounds=WITHOUT_GOAL),
    Shape(name="sleeping", title="jobs that sleep 50 ms, 5,000 at once, beside such that sleep 1 ms",
          measure=_sleeping, goals=_kept(0.9)),
    Shape(name="flight-5k", title="{} jobs in flight in another worker", counts=(5_000,), measure=_in_flight(5_000),
          goals=_kept(0.9), others=NOT_WRITTEN),
    Shape(name="flight-50k", title="{} jobs in flight in another worker", counts=(50_000,), measure=_in_flight(50_000),
          goals=_kept(0.9), others=NOT_WRITTEN),
    Shape(name="payload-1k", title="payloads of 1 kB", measure=_payload(1_000, 20_000), rounds=WITHOUT_GOAL),
    Shape(name="payload-100k", title="payloads of 100 kB", measure=_payload(100_000, 2_000), rounds=WITHOUT_GOAL),
    Shape(name="transaction", title="a transaction left open for a second", measure=_transaction, others=NO_TRANSACTION,
          goals=tuple(Bound(f"{turn}_delay_ms", False, 250, f"ms longer, a {turn} in it") for turn in TURNS)),
    Shape(name="autovacuum", title="steady state, autovacuum off", rounds=WITHOUT_GOAL,
          measure=lambda stage, who: steady_beside_plain(stage, who, autovacuum=False)),
    Shape(name="processes", title="steady state, 8 worker processes", rounds=WITHOUT_GOAL,
          measure=lambda stage, who: steady_beside_plain(stage, who, processes=8)),
    Shape(name="pinned", title="MVCC horizon pinned, {} jobs: the last tenth beside the first", counts=(1_000_000,),
          measure=lambda stage, who: drain_pinned(stage, who, 1_000_000),
          goals=(*_kept(0.8), Bound("late_s", False, 30, "s until a late job starts"))),
    Shape(name="paced", title="MVCC horizon pinned, 2,000 jobs/s for minutes: the last tenth beside the first",
          measure=pace_pinned, others=TAKES_LONG, goals=(Bound("late_s", False, 30, "s until a late job starts"),)),
    # Last, since it leaves most to do for the server afterwards.
    Shape(name="finished", title="{} finished jobs kept", counts=(10_000_000,), measure=_finished, goals=_kept(0.95),
          unable={"Graphile Worker": KEEPS_NONE}),
)  # fmt: skip
