"""What tests of migration tools have in common: projects in a folder, run by the real tools, and a job afterwards."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psycopg

from piecework import Jobs
from support.databases import OLDEST, binaries

SOON = timedelta(seconds=60)


class Project:
    """A folder with files, and commands that run in it."""

    def __init__(self, folder: Path, files: dict[str, str], **environment: str) -> None:
        self.folder = folder
        self.environment = os.environ | environment
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def python(self, *arguments: str, fails: bool = False, **environment: str) -> str:
        """Run a Python command and return what it printed; what it said on stderr is added if it was to fail."""
        ran = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self.environment | environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert (ran.returncode != 0) == fails, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout + ran.stderr if fails else ran.stdout


def psql(dsn: str, script: str) -> str:
    """Run a script by the real psql and return what that said."""
    program = shutil.which("psql") or str((binaries(OLDEST) or Path()) / "psql")
    ran = subprocess.run(
        [program, "-X", "-v", "ON_ERROR_STOP=1", "-d", dsn], input=script, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def run_a_job(dsn: str, schema: str = "piecework") -> None:
    """Open a `Jobs` that does not migrate, and run a job."""

    async def main() -> None:
        jobs = Jobs(dsn, schema=schema, migrate=False)

        @jobs.job
        async def add(a: int, b: int) -> int:
            return a + b

        async with jobs, jobs.worker():
            assert await (await add.spawn(1, 2)).result(timeout=SOON) == 3

    asyncio.run(main())


def schemas(dsn: str) -> list[str]:
    """The schemas of a database that are not PostgreSQL's own."""
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)' ORDER BY 1")
        return [name for (name,) in found]


def lose_a_function(dsn: str) -> None:
    """Make the schema one of an older release."""
    with psycopg.connect(dsn) as conn:
        conn.execute("DROP FUNCTION piecework.look_1; DELETE FROM piecework.functions WHERE name = 'look_1'")


def example(beginning: str) -> str:
    """The example of docs/guide.md that begins so."""
    guide = (Path(__file__).parent.parent.parent / "docs" / "guide.md").read_text()
    (found,) = (block for block in re.findall(r"^```python\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
                if block.startswith(beginning))  # fmt: skip
    return found
