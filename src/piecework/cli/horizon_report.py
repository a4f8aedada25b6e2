"""What `piecework status` tells of dead rows, of who keeps them, and of what claims cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypedDict

import click

from piecework.cli.output import quiet_text
from piecework.model.cursors import slowest
from piecework.model.horizon import SLOW_CLAIM, Claims, Forecast, Watch, foretold, latest
from piecework.model.pins import described, remedy

BLIND = "grant it pg_read_all_stats"


class SlowLaneReport(TypedDict):
    """A lane in which a listed worker starts its claims at a cursor."""

    queue: str
    job_type: str
    priority: int
    passed: int
    seconds: float


class ClaimsReport(TypedDict):
    """What the claims of the listed workers have cost since each began."""

    calls: int
    jobs: int
    seconds_per_job: float | None
    worst_seconds: float
    slow: int
    slow_lanes: list[SlowLaneReport]


class CulpritReport(TypedDict):
    """Who keeps dead rows from being removed."""

    kind: str
    name: str
    pid: int | None
    role: str | None
    state: str | None
    query: str | None
    seconds: float
    text: str
    advice: str


class HorizonReport(TypedDict):
    """What the guard of the workers knows."""

    sampled_at: datetime
    dead_rows: int
    dead_rows_of_keys: int
    vacuumed_seconds: float | None
    dead_rows_per_second: float
    claim_seconds: float | None
    doubled_in_seconds: float | None
    tenfold_in_seconds: float | None
    sees_all: bool
    culprit: CulpritReport | None


def claims_report(counted: Sequence[Claims]) -> ClaimsReport:
    """Add up what workers count of their claims."""
    jobs, seconds = sum(claims.jobs for claims in counted), sum(claims.seconds for claims in counted)
    return ClaimsReport(
        calls=sum(claims.calls for claims in counted), jobs=jobs, seconds_per_job=seconds / jobs if jobs else None,
        worst_seconds=max((claims.worst for claims in counted), default=0.0),
        slow=sum(claims.slow for claims in counted),
        slow_lanes=[
            SlowLaneReport(
                queue=lane.queue, job_type=lane.job_type, priority=lane.priority, passed=lane.passed,
                seconds=lane.seconds,
            )
            for lane in slowest(lane for claims in counted for lane in claims.slow_lanes)
        ],
    )  # fmt: skip


def horizon_report(watches: Iterable[Watch | None]) -> HorizonReport | None:
    """Report what was written down last."""
    watch = latest(watches)
    if watch is None:
        return None
    expected = watch.forecast
    return HorizonReport(
        sampled_at=datetime.fromtimestamp(watch.at, UTC), dead_rows=watch.dead, dead_rows_of_keys=watch.dead_keys,
        vacuumed_seconds=watch.vacuumed, dead_rows_per_second=expected.growth, claim_seconds=expected.claim,
        doubled_in_seconds=expected.doubled_in, tenfold_in_seconds=expected.tenfold_in, sees_all=watch.sees_all,
        culprit=_culprit(watch),
    )  # fmt: skip


def _culprit(watch: Watch) -> CulpritReport | None:
    suspect = watch.culprit
    if suspect is None:
        return None
    pin = suspect.pin
    hidden = pin.kind == "session" and pin.state is None and not watch.sees_all
    blind = f"; this role may not see what it does: {BLIND}" if hidden else ""
    return CulpritReport(
        kind=pin.kind, name=pin.name, pid=pin.pid, role=pin.role, state=pin.state, query=pin.query,
        seconds=max(pin.seconds or 0.0, watch.at - suspect.since), text=described(pin) + blind, advice=remedy(pin),
    )  # fmt: skip


def print_horizon(horizon: HorizonReport | None, claims: ClaimsReport) -> None:
    """Say who keeps dead rows, and that claims are slow; nothing where all is well."""
    if claims["slow"]:
        click.echo(
            f"\nSlow claims: {claims['slow']} of {claims['calls']} took longer than {SLOW_CLAIM:g} s, "
            f"the worst {claims['worst_seconds']:.1f} s."
        )
    for lane in claims["slow_lanes"]:
        name = quiet_text(f"{lane['job_type']} in queue {lane['queue']}, priority {lane['priority']}")
        click.echo(
            f"\nClaims of {name} start at a cursor: from the very start one passes over {lane['passed']} dead entries, "
            f"in {lane['seconds']:.2g} s."
        )
    culprit = None if horizon is None else horizon["culprit"]
    if horizon is not None and culprit is not None:
        comes = foretold(Forecast(
            horizon["dead_rows_per_second"], horizon["claim_seconds"], horizon["doubled_in_seconds"],
            horizon["tenfold_in_seconds"],
        ))  # fmt: skip
        click.echo(f"\nDead rows of jobs: {horizon['dead_rows']}, kept by:")
        click.echo(click.wrap_text(quiet_text(culprit["text"]), 80, "- ", "  "))
        for text in filter(None, (comes, culprit["advice"])):
            click.echo(click.wrap_text(quiet_text(text), 80, "  → ", "    "))
