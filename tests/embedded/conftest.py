from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from embedded.helpers import Client, stop

from piecework.store.embedded import EmbeddedServer, acquire, remove


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of the test's own, not made yet. Its server and its data are gone after the test."""
    path = tmp_path / "home"
    yield path
    stop(path)
    remove(path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter: as root, the server's user is let into no folder of pytest's."""
    path = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="piecework-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def clients(home: Path) -> Iterator[Callable[..., Client]]:
    """Starts clients of `home`, in processes of their own."""
    started: list[Client] = []

    def start(*, programs: Path | None = None) -> Client:
        started.append(Client(home, programs))
        return started[-1]

    yield start
    for client in started:
        client.kill()


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedServer]:
    """This process's own lease on the server of `home`, which stops at once when nobody holds one."""
    with acquire(home, grace=timedelta(0)) as acquired:
        yield acquired
