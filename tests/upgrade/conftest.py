from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from upgrade import releases
from upgrade.crew import Crew
from upgrade.releases import Release


@pytest.fixture(scope="session")
def before() -> Release:
    """The release before this one."""
    return releases.previous()


@pytest.fixture(scope="session")
def now(before: Release, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """This release, with the migrations of the fixture."""
    return releases.this(before, tmp_path_factory.mktemp("this"))


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path)
    yield crew
    crew.close()
    for process in crew.processes:
        print(f"{process.role} of {process.release.name} said:\n{process.log.read_text()[-1500:]}")
