"""What `piecework status` and `piecework doctor` tell of who keeps dead rows, and of what claims cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from click.testing import CliRunner

from piecework.cli import main
from piecework.engine.horizon_guard import HorizonGuard
from piecework.model.cursors import SlowLane
from piecework.model.horizon import Limits
from piecework.store.liveness import Counters
from support.horizon import SECRET, a_session, make_dead_rows
from support.private_postgres import PrivatePostgres
from support.scene import Scene

AT_ONCE = Limits(age=0.0, growth=1_000)


@pytest.fixture
async def scene(private_postgres: Callable[..., PrivatePostgres]) -> AsyncIterator[Scene]:
    """On a server of the test's own: who holds the horizon of another test is not told of."""
    async with Scene.open(private_postgres(autovacuum="off").dsn, migrate=True) as scene:
        yield scene


async def said(scene: Scene, command: str, *options: str) -> str:
    arguments = [command, "--database-url", scene.dsn, *options]
    return (await asyncio.to_thread(CliRunner().invoke, main.command, arguments)).output


async def status(scene: Scene) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(await said(scene, "status", "--json"))
    return report


async def horizon_check(scene: Scene) -> dict[str, str]:
    checks: list[dict[str, str]] = json.loads(await said(scene, "doctor", "--json"))["checks"]
    return next(check for check in checks if check["name"] == "horizon")


async def test_who_keeps_dead_rows_is_told_with_the_forecast_and_what_to_do(scene: Scene) -> None:
    worker, counters = scene.worker(), Counters()
    guard = HorizonGuard(scene.pulse, counters, AT_ONCE)

    def look() -> None:
        guard.look()
        scene.pulse.beat(worker, draining=False, job_types=["work"], counters=counters)

    await make_dead_rows(scene, 6_000)
    with a_session(scene.dsn) as pid:
        look()
        for seconds in (0.01, 0.25):
            counters.claims.add(seconds, 100)
        counters.claims.slow_lanes = (SlowLane("mails", "send", 3, 1_000_000, 0.14),)
        scene.pulse.beat(worker, draining=False, job_types=["work"], counters=counters)
        dead = await make_dead_rows(scene, 2_000)
        look()
        report = await status(scene)
        shown = await said(scene, "status")
        check = await horizon_check(scene)

    horizon, culprit = report["horizon"], report["horizon"]["culprit"]
    assert list(horizon) == [
        "sampled_at", "dead_rows", "dead_rows_of_keys", "vacuumed_seconds", "dead_rows_per_second", "claim_seconds",
        "doubled_in_seconds", "tenfold_in_seconds", "sees_all", "culprit",
    ]  # fmt: skip
    assert (horizon["dead_rows"], horizon["claim_seconds"], horizon["sees_all"]) == (dead, 0.13, True)
    assert horizon["dead_rows_per_second"] > 1
    assert horizon["tenfold_in_seconds"] is None, "claims that start at a cursor get no slower"
    assert list(culprit) == [
        "kind", "name", "pid", "role", "state", "query", "seconds", "text", "advice",
    ]  # fmt: skip
    assert (culprit["kind"], culprit["name"], culprit["pid"], culprit["query"]) == ("session", "forgetful", pid, SECRET)
    assert f"pg_terminate_backend({pid})" in culprit["advice"]
    assert report["claims"] == {
        "calls": 2, "jobs": 200, "seconds_per_job": 0.0013, "worst_seconds": 0.25, "slow": 1, "slow_lanes": [
            {"queue": "mails", "job_type": "send", "priority": 3, "passed": 1_000_000, "seconds": 0.14}],
    }  # fmt: skip

    assert "Slow claims: 1 of 2 took longer than 0.1 s, the worst 0.2 s." in shown
    told = shown[shown.index("Dead rows of jobs") :]
    assert told.startswith(f"Dead rows of jobs: {dead}, kept by:\n- session pid {pid} 'forgetful'")
    words = " ".join(shown.split())
    assert "come every second; a claim takes 130.0 ms now →" in words
    assert "Claims of send in queue mails, priority 3 start at a cursor: from the very start one passes over 1" in words
    assert f"→ end that session: SELECT pg_terminate_backend({pid}); idle_in_transaction_session_timeout" in words
    assert max(map(len, told.splitlines())) <= 80

    assert check["status"] == "ok", "it is not older than a minute"
    assert f"; dead rows of jobs: {dead}, " in check["text"]
    assert check["text"].endswith("takes 130.0 ms now; claims start at a cursor: send in queue mails")


async def test_nothing_is_told_when_all_is_well(scene: Scene) -> None:
    assert (await status(scene))["horizon"] is None
    worker, counters = scene.worker(), Counters()
    counters.claims.add(0.01, 1)
    HorizonGuard(scene.pulse, counters, AT_ONCE).look()
    scene.pulse.beat(worker, draining=False, job_types=["work"], counters=counters)
    report = await status(scene)
    assert (report["horizon"]["culprit"], report["horizon"]["dead_rows"], report["claims"]["slow"]) == (None, 0, 0)
    shown = await said(scene, "status")
    assert "Dead rows" not in shown
    assert "Slow claims" not in shown
    check = await horizon_check(scene)
    assert check["status"] == "ok"
    assert check["text"] == "no transaction is open for longer than 60.0 s; dead rows of jobs: 0"
