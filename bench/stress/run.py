"""One run of the stress shapes: what fails is named and the rest goes on; what is found is kept after each shape."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypedDict

from bench.peers.build import build
from bench.peers.contestants import Contestant
from bench.peers.measure import Ring
from bench.peers.process import MeasureError
from bench.server import Server
from bench.shapes import Figures
from bench.stress.contestants import CONTESTED
from bench.stress.measure import Run
from bench.stress.rounds import Plan, Stage
from bench.stress.shapes import SHAPES, Shape


class Outcome(TypedDict):
    """What a contestant showed in a shape."""

    figures: list[Figures]
    """Once per round that came to its end."""
    failure: str | None


class Found(TypedDict):
    """All that is kept of a shape."""

    title: str
    date: str
    load: float
    """Of the machine, before it."""
    seconds: float
    scale: float
    outcomes: dict[str, Outcome]
    left_out: dict[str, str]
    """Why a contestant did not meet it."""


class Stress:
    """The contestants that could be built, the server that they meet on, and what has been found."""

    def __init__(
        self, server: Callable[[], AbstractContextManager[Server]], plan: Plan, only: Sequence[str] = ()
    ) -> None:
        """`only` names the contestants that take part."""
        self.shapes: dict[str, Found] = {}
        self.missing: dict[str, str] = {}
        """Why a contestant does not take part."""
        self._server = server
        self._plan = plan
        self._chosen = [who for who in CONTESTED if not only or who.name in only]
        self._named = bool(only)
        self._entered: list[Contestant] = []
        self._open = contextlib.ExitStack()
        self._ring: Ring | None = None
        self._plains: dict[object, tuple[float, Run]] = {}
        self._start = time.monotonic()

    def measure(self, shapes: Iterable[Shape] = SHAPES, keep: Callable[[], None] = lambda: None) -> None:
        """Go through the shapes; `keep` is called after each."""
        unbuilt = build({who.environment for who in self._chosen if who.environment is not None}, again=False)
        self._chosen = [who for who in self._chosen if not self._is_missing(who, unbuilt)]
        try:
            for shape in shapes:
                self._play(shape)
                keep()
        finally:
            self._open.close()

    def _is_missing(self, who: Contestant, unbuilt: Mapping[str, str]) -> bool:
        if who.environment in unbuilt:
            self.missing[who.name] = unbuilt[str(who.environment)]
        return who.name in self.missing

    def _play(self, shape: Shape) -> None:
        began, load = time.monotonic(), round(os.getloadavg()[0], 1)
        found = self.shapes[shape.name] = Found(
            title="", date=datetime.now(UTC).date().isoformat(), load=load, seconds=0, scale=self._plan.scale,
            outcomes={}, left_out={},
        )  # fmt: skip
        print(f"{self._clock()}  {shape.name}", flush=True)
        for who in self._chosen:
            # A long shape is left to who asks for it by name.
            if (reason := shape.left_out(who)) and not (self._named and shape.others.startswith("not run: it takes")):
                found["left_out"][who.name] = reason
                continue
            outcome = found["outcomes"][who.name] = Outcome(figures=[], failure=None)
            try:
                stage = Stage(self._ready(), self._plan, shape.rounds, self._plains)
                found["title"] = shape.shown(stage)
                if who.name in self.missing:
                    raise MeasureError(self.missing[who.name])
                for figures in shape.measure(stage, who):
                    outcome["figures"].append(figures)
                    self._print(who, figures)
            except Exception as error:  # whatever it is, the others go on
                outcome["failure"] = said(error)
                print(f"{self._clock()}    {who.name:16} FAILED: {said(error)}", flush=True)
        found["seconds"] = round(time.monotonic() - began, 1)

    def _ready(self) -> Ring:
        """The ring, on a server that answers: a new one where the last is gone."""
        if self._ring is not None:
            try:
                self._ring.server.read("postgres")
                return self._ring
            except Exception as error:
                print(f"{self._clock()}  the server is gone: {said(error)}: a new one is started", flush=True)
                self._ring = None
                with contextlib.suppress(Exception):
                    self._open.close()
        server = self._open.enter_context(self._server())
        ring = Ring(server)
        self._open.callback(ring.close)
        for who in self._chosen:
            try:
                ring.enter(who)
            except Exception as error:
                self.missing[who.name] = said(error)
        self._ring = ring
        return ring

    def _print(self, who: Contestant, figures: Figures) -> None:
        shown = ", ".join(f"{key} {value:,.4g}" for key, value in list(figures.items())[:7] if value is not None)
        print(f"{self._clock()}    {who.name:16} {shown}", flush=True)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._start:6.0f} s"


def said(error: Exception) -> str:
    """One line; an error that no measurement foresees with its kind."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, MeasureError) else f"{type(error).__name__}: {text}"


def holds(outcome: Outcome) -> bool:
    """Whether it came to its end."""
    return outcome["failure"] is None and bool(outcome["figures"])

