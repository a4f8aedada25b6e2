"""The fence itself: taken out of the statement, a late settle writes over what is another's now."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from piecework.model.job import ClaimedJob
from piecework.model.settlement import Settlement, completed, released
from piecework.store.statements import sql_files
from support.scene import NOW, Scene

pytestmark = pytest.mark.postgres(18, 15)

CLAIM = ["AND j.claim_no = u.claim_no", "AND j.claim_no = v_job.claim_no"]
WORKER = ["AND coalesce(j.worker_id = p_worker, false)"]


def take_out(scene: Scene, conditions: Sequence[str]) -> None:
    """Install a settle that does not ask."""
    [text] = [file.text for file in sql_files("functions") if file.name == "settle_1"]
    for condition in conditions:
        assert condition in text
        text = text.replace(condition, "")
    scene.sql.execute(scene.statements.render(text))


async def claimed_by_another(scene: Scene, worker: str) -> None:
    scene.pulse.rescue(worker, 0, 18.0)
    await scene.claim(scene.worker())


async def claimed_by_another_with_the_same_number(scene: Scene, worker: str) -> None:
    scene.sql.execute("UPDATE jobs SET worker_id = NULL, claim_no = 0")
    await scene.claim(scene.worker())


async def claimed_again_by_itself(scene: Scene, worker: str) -> None:
    scene.sql.execute("UPDATE jobs SET worker_id = NULL")
    await scene.claim(worker)


def late(jobs: Sequence[ClaimedJob]) -> list[Settlement]:
    return [
        completed(jobs[0], NOW, None),
        Settlement(jobs[1], "fail", NOW, attempt=1),
        Settlement(jobs[2], "retry", NOW, attempt=2),
        released(jobs[3]),
    ]


@pytest.mark.parametrize(
    ("conditions", "happen"),
    [
        (WORKER, claimed_by_another_with_the_same_number),
        (CLAIM, claimed_again_by_itself),
        (CLAIM + WORKER, claimed_by_another),
    ],
    ids=["worker", "claim number", "both"],
)
async def test_without_its_condition_a_late_settle_changes_what_is_not_its_own(
    own_scene: Scene, conditions: Sequence[str], happen: object
) -> None:
    worker, jobs = await own_scene.running(4)
    await happen(own_scene, worker)  # type: ignore[operator]
    before = own_scene.dump()
    assert await own_scene.settle(worker, *late(jobs)) == ["lost"] * 4
    assert own_scene.dump() == before
    take_out(own_scene, conditions)
    assert await own_scene.settle(worker, *late(jobs)) == ["landed"] * 4
    after = own_scene.dump()
    assert [len(after[table]) for table in ("jobs", "finished_jobs")] == [2, 2]
    assert all(row["worker_id"] is None for row in after["jobs"])
