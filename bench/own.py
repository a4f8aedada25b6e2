"""The rounds beside the bare loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from bench import shapes
from bench.place import machine
from bench.report import Result
from bench.server import Server

MEASUREMENTS = ("drain", "steady", "latency", "spawning", "idle")
SYSTEMS = ("bare", "ours")
DRAIN_LIMIT = 120  # seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured. The default takes about five minutes on two cores."""

    rounds: int = 3
    drain_jobs: int = 50_000
    steady_jobs: int = 200_000
    steady_limit: int = 30
    """Seconds after which a run of the steady state is cut off."""
    latency_jobs: int = 200
    single_spawns: int = 1_000
    bulk_jobs: int = 50_000
    idle_seconds: int = 20


QUICK = Plan(
    rounds=1, drain_jobs=20_000, steady_jobs=50_000, steady_limit=10, latency_jobs=100, single_spawns=400,
    bulk_jobs=20_000, idle_seconds=6,
)  # fmt: skip


class Run:
    """One run beside the bare loop, and the figures so far."""

    def __init__(
        self, server: Server, plan: Plan, only: set[str], keep: Callable[[Result], None] = lambda _: None
    ) -> None:
        """`keep` is called with all that is known after each measurement."""
        self.result: Result = {"machine": machine(server), "plan": asdict(plan), "figures": {}, "failures": []}
        self._figures: dict[str, list[shapes.Figures]] = {}
        self._failures: list[str] = []
        self._server = server
        self._plan = plan
        self._only = only
        self._keep = keep
        self._rounds = 0
        self._start = time.monotonic()

    def measure(self) -> Result:
        """Go through all rounds, and print as it goes."""
        for _ in range(self._plan.rounds):
            self.measure_round()
        if "idle" in self._only:
            self._add("idle", lambda: shapes.idle(self._server, self._plan.idle_seconds))
        return self.result

    def measure_round(self) -> None:
        """The two sides of a comparison stand next to each other in time, and take turns in who comes first."""
        server, plan = self._server, self._plan
        self._rounds += 1
        print(f"round {self._rounds}")
        systems = SYSTEMS if self._rounds % 2 else SYSTEMS[::-1]
        for system in systems if "drain" in self._only else ():
            self._add(f"drain {system}", partial(shapes.drain, server, system, plan.drain_jobs, DRAIN_LIMIT))
        for system in systems if "steady" in self._only else ():
            self._add(
                f"steady {system}", partial(shapes.steady, server, system, plan.steady_jobs, plan.steady_limit)
            )
        if "latency" in self._only:
            self._add("latency", lambda: shapes.latency(server, plan.latency_jobs))
        if "spawning" in self._only:
            self._add("spawning", lambda: shapes.spawning(server, plan.single_spawns, plan.bulk_jobs))

    def _add(self, name: str, measure: Callable[[], shapes.Figures]) -> None:
        figures: shapes.Figures = {}  # what failed has none in its round
        try:
            figures = measure()
        except Exception as error:  # whatever it is, the others go on
            said = f"{name}, round {self._rounds}: {' '.join(str(error).split())[:300]}"
            self._failures.append(said)
            shown = f"FAILED: {said}"
        else:
            shown = ", ".join(
                f"{key} {value:,.0f}" if value >= 1000 else f"{key} {value:.3g}"
                for key, value in list(figures.items())[:6]
                if value is not None
            )
        self._figures.setdefault(name, []).append(figures)
        self.result["figures"], self.result["failures"] = self._figures, self._failures
        print(f"  {time.monotonic() - self._start:5.0f} s  {name:12}  {shown}", flush=True)
        self._keep(self.result)
