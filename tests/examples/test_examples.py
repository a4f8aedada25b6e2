"""The programs in examples/ are run as their readers run them, and print what they are there to show."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LIMIT = 100.0

# The lines that each program prints, as regular expressions.
PRINTS = {
    "account_sync.py": [
        r"spawned again: False",
        # Both accounts at once: the lines of one are in this order, those of the other between them.
        r"in step: \['ada', 'grace'\]",
        r"cancelled: \[True, True\]",
    ],
    "batched_revaluation.py": [
        r"1 completed 30",
        r'2 errored new row for relation "positions" violates check constraint "positions_value_check"',
        r"3 completed 100",
        r"4 errored OIL has no price",
        r"stored: \{1: 30, 3: 100\}",
    ],
    "fan_out_and_wait.py": [r"words per page: \[4, 2, 6\]", r"and once more: \[4, 2, 6\]"],
    "fastapi_app.py": [r"202 placed", r"status: completed progress: None shipped: True"],
    "flask_style_sync.py": [r"ada-100\.png", r"grace-100\.png", r"mary-100\.png", r"the worker has drained: 0"],
    "hourly_sweep.py": [
        r"spawned: True False", r"swept: \['ada'\]", r"swept: \[\]", r"swept: \[\]", r"cancelled: True"
    ],
    "seed_quickstart.py": [r"Spawned once, however often we try\.", r"Job completed!"],
    "sharded_listener.py": [
        r"killed the worker between two pages, or within one",
        r"handled 360 events, none of them twice",
        r"shard 0: Cursor\(event=360\)",
        r"shard 1: Cursor\(event=358\)",
        r"shard 2: Cursor\(event=359\)",
        r"cancelled: \[True, True, True\]",
    ],
    "transactional_completion.py": [
        r"attempt 1: the connection broke halfway",
        r"attempt 2: moved 30, and completed",
        r"balances: \{'ada': 70, 'grace': 30\}",
    ],
    "transactional_outbox.py": [
        r"committed: ada@example\.org was told",
        r"rolled back: the second teapot was not in stock",
        r"job of the second order: None",
        r"orders: \['ada@example\.org'\]",
    ],
}  # fmt: skip

# Lines that may come in between, since they depend on who is faster.
BETWEEN = {
    "account_sync.py": r"(ada|grace): entries \[.*\] in attempt \d",
    "fastapi_app.py": r"status: (pending|running) progress: (None|0\.\d+) shipped: False",
}


def url_of(dsn: str) -> str:
    """The same database as a URL, which is what most applications have."""
    parts = {name: quote(str(value), safe="/") for name, value in conninfo_to_dict(dsn).items()}
    user, database = parts.pop("user"), parts.pop("dbname")
    return f"postgresql://{user}@/{database}?" + "&".join(f"{name}={value}" for name, value in parts.items())


def run(name: str, folder: Path, url: str | None) -> list[str]:
    """Run an example in this folder and return the lines that it printed."""
    kept = {name: os.environ[name] for name in ("PATH", "PIECEWORK_DATA_ROOT") if name in os.environ}
    given = {} if url is None else {"PIECEWORK_DATABASE_URL": url}
    # Files, not pipes: an embedded server may outlive what started it.
    with (folder / "stdout.txt").open("w+") as stdout, (folder / "stderr.txt").open("w+") as stderr:
        process = subprocess.Popen([sys.executable, EXAMPLES / name], cwd=folder, env={**kept, **given},
                                   stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                   start_new_session=True)  # fmt: skip
        try:
            process.wait(timeout=LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):  # the workers that it started, if it failed
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        printed = stdout.read()
        assert process.returncode == 0, f"{name} ended with {process.returncode}\n{printed}\n{stderr.read()}"
    return printed.splitlines()


def check(name: str, lines: list[str]) -> None:
    between = re.compile(BETWEEN.get(name, "(?!)"))
    told = [line for line in lines if not between.fullmatch(line)]
    assert len(told) == len(PRINTS[name]), "\n".join(lines)
    for line, expected in zip(told, PRINTS[name], strict=True):
        assert re.fullmatch(expected, line), f"printed {line!r}, not {expected!r}"


def test_every_example_is_run_and_listed() -> None:
    files = {path.name for path in EXAMPLES.rglob("*.py")}
    assert files == PRINTS.keys()
    listed = re.findall(r"^- \[(\S+)\]\(\1\): ", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(files)


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_shows_what_it_is_there_for_and_may_be_run_again(name: str, dsn: str, tmp_path: Path) -> None:
    check(name, run(name, tmp_path, url_of(dsn)))
    check(name, run(name, tmp_path, url_of(dsn)))


@pytest.mark.parametrize("name", ["seed_quickstart.py", "transactional_outbox.py"])
def test_an_example_needs_no_database(name: str, tmp_path: Path) -> None:
    check(name, run(name, tmp_path, None))


def test_account_sync_goes_on_behind_what_it_had_seen_before_the_failure(dsn: str, tmp_path: Path) -> None:
    lines = run("account_sync.py", tmp_path, url_of(dsn))
    assert [line for line in lines if line.startswith("ada:")] == [
        "ada: entries [1, 2] in attempt 1", "ada: entries [3, 4] in attempt 2", "ada: entries [5] in attempt 2"
    ]  # fmt: skip


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # pydantic and msgspec look their annotations up there
    spec.loader.exec_module(module)
    return module


async def test_the_web_application_places_orders_and_shows_them(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIECEWORK_DATABASE_URL", url_of(dsn))
    app = load("fastapi_app").app
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
    async with app.router.lifespan_context(app), client:
        assert (await client.post("/orders", json={})).status_code == 422
        assert (await client.get(f"/orders/{uuid4()}")).status_code == 404
        placed = await client.post("/orders", json={"item": "teapot"})
        assert placed.status_code == 202
        pages = await pages_until_shipped(client, f"/orders/{placed.json()}")
    assert {page["item"] for page in pages} == {"teapot"}
    assert pages[-1] == {"id": placed.json(), "item": "teapot", "shipped": True, "status": "completed",
                         "progress": None, "note": ""}  # fmt: skip
    assert {0.25, 0.5, 0.75} & {page["progress"] for page in pages}, "no page showed progress"
    assert all(page["status"] != "completed" or page["shipped"] for page in pages)


async def pages_until_shipped(client: httpx.AsyncClient, path: str) -> list[dict[str, object]]:
    pages: list[dict[str, object]] = []
    deadline = time.monotonic() + LIMIT
    while not pages or pages[-1]["status"] != "completed":
        assert time.monotonic() < deadline, pages[-1]
        answer = await client.get(path)
        assert answer.status_code == 200
        pages.append(answer.json())
    return pages
