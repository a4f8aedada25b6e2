"""Patroni decides who the primary is, as in production: the leader is killed, then the work is switched back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.load import under_load
from failover.patroni import Patroni
from support.databases import OLDEST, binaries

pytestmark = [pytest.mark.failover, pytest.mark.timeout(600)]
NAPS, LONG = 6, 15.0


@pytest.fixture
def patroni() -> Iterator[Patroni]:
    bin_dir = binaries(OLDEST)
    assert bin_dir is not None
    made = Patroni(bin_dir)
    yield made
    print(made.logs())
    made.remove()


async def test_a_leader_that_is_killed_and_a_switchover_lose_and_double_nothing(
    patroni: Patroni, tmp_path: Path
) -> None:
    async with under_load(patroni.dsn, patroni.ways, tmp_path) as trial:
        trial.spawn_naps(NAPS, LONG)  # they run when their workers' leases run out
        await trial.napping(NAPS, LONG)
        await trial.through(await patroni.kill_leader())
        await patroni.bring_back()
        await trial.through(await patroni.switch_back())
        report, _ = await trial.verdict("Patroni's leader killed", "`patronictl switchover`")
    assert report.violations == []
    assert trial.cut_short(after=LONG / 3) >= NAPS
