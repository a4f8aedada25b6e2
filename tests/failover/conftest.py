"""What the tests of failovers take. They run by `make failover`: two servers, several processes, minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from failover.cluster import Cluster
from support.databases import NEWEST, OLDEST, binaries


@pytest.fixture(params=[NEWEST, OLDEST], ids=["pg18", "pg15"])
def bin_dir(request: pytest.FixtureRequest) -> Path | None:
    """Where the programs of the servers are: of the embedded ones, and of Debian's PostgreSQL 15."""
    return binaries(request.param)


@pytest.fixture
def make_cluster(bin_dir: Path | None) -> Iterator[Callable[..., Cluster]]:
    """Make a primary with its standby, removed after the test: `make_cluster(Distant)`."""
    made: list[Cluster] = []

    def make(kind: Callable[[Path | None], Cluster] = Cluster) -> Cluster:
        made.append(kind(bin_dir))
        return made[-1]

    yield make
    for each in made:
        each.remove()


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster()
