"""The horizon guard: names whoever keeps dead rows from being removed. It looks, and never ends anything."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec
import psycopg

from piecework.base import metrics
from piecework.base.errors import DatabaseError, DatabaseUnreachable
from piecework.model import horizon
from piecework.model.cursors import named
from piecework.model.horizon import Limits, Sample, Suspect, Watch
from piecework.model.pins import Pin, described, remedy
from piecework.store.liveness import Counters, Pulse

log = logging.getLogger("piecework.worker")
_OLD = 300.0


class HorizonGuard:
    """Looks when the duty falls to this worker, in the heartbeat's thread.

    Args:
        pulse: asked by one statement; by a second one where there are many dead rows.
        counters: what is known is written there, and so into the worker's row.
        limits: from when on somebody is to blame.
    """

    def __init__(self, pulse: Pulse, counters: Counters, limits: Limits = horizon.LIMITS) -> None:
        self._pulse = pulse
        self._counters = counters
        self._limits = limits
        self._looked = 0.0
        self._sees_dead_rows = self._sees_pins = True

    def look(self) -> None:
        """Look, and say what is to be said.

        Raises:
            DatabaseUnreachable
        """
        sample = self._sample()
        if sample is None:
            return
        sample = msgspec.structs.replace(sample, watch=horizon.latest([sample.watch, self._counters.horizon]))
        pins = self._pins() if horizon.worth_a_look(sample) else ()
        found, accused, gone = horizon.watch(sample, pins, self._limits)
        self._counters.horizon, self._looked = found, time.monotonic()
        for suspect in gone:
            log.info("%s keeps dead rows no longer", described(suspect.pin), extra=_facts(suspect, found))
        if accused is not None:
            self._accuse(accused, found)
        _show(found)

    def forget_if_old(self) -> None:
        """Drop what is known when others have been looking for long: it would be taken for the present."""
        if time.monotonic() - self._looked > _OLD:
            self._counters.horizon = None

    def _accuse(self, suspect: Suspect, found: Watch) -> None:
        what = [described(suspect.pin)]
        if suspect.pin.kind == "session" and suspect.pin.state is None and not found.sees_all:
            what.append("what it does is hidden from this role (grant it pg_read_all_stats)")
        comes = "; ".join(filter(None, (horizon.foretold(found.forecast), named(found.slow_lanes))))
        log.warning(
            "%s keeps vacuum from removing dead rows: jobs has %d, %d more than when it was first seen%s. To do: %s",
            ", ".join(what), found.dead, found.dead - suspect.least, f", and {comes}" if comes else "",
            remedy(suspect.pin), extra=_facts(suspect, found),
        )  # fmt: skip

    def _sample(self) -> Sample | None:
        try:
            return self._pulse.sample_horizon() if self._sees_dead_rows else None
        except DatabaseUnreachable:
            raise
        except (DatabaseError, psycopg.Error) as error:
            self._sees_dead_rows = False
            log.info("dead rows, and who keeps them, cannot be seen: %s", error)
            return None

    def _pins(self) -> Sequence[Pin] | None:
        try:
            return self._pulse.pins() if self._sees_pins else None
        except DatabaseUnreachable:
            raise
        except (DatabaseError, psycopg.Error) as error:
            self._sees_pins = False
            log.info("who keeps dead rows from being removed cannot be seen: %s", error)
            return None


def _facts(suspect: Suspect, found: Watch) -> dict[str, object]:
    pin = suspect.pin
    return {
        "pin_kind": pin.kind, "pin_name": pin.name, "pin_pid": pin.pid, "pin_state": pin.state,
        "pin_query": pin.query, "dead_rows": found.dead,
    }  # fmt: skip


def _show(found: Watch) -> None:
    expected, culprit = found.forecast, found.culprit
    shown: list[metrics.Shown] = [
        metrics.Shown("piecework.dead_rows", found.dead, {"table": "jobs"}),
        metrics.Shown("piecework.dead_rows", found.dead_keys, {"table": "concurrency_keys"}),
    ]
    if expected.claim is not None:
        shown.append(metrics.Shown("piecework.claim.mean", expected.claim, {}))
    age, of = 0.0, {"kind": "none", "name": ""}
    if culprit is not None:
        age = max(culprit.pin.seconds or 0.0, found.at - culprit.since)
        of = {"kind": culprit.pin.kind, "name": culprit.pin.name}
    shown.append(metrics.Shown("piecework.horizon.age", age, of))
    for lane in found.slow_lanes:
        labels = {"queue": lane.queue, "job_type": lane.job_type, "priority": str(lane.priority)}
        shown.append(metrics.Shown("piecework.lane.passed", lane.passed, labels))
    metrics.show(shown)
