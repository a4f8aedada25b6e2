"""Each promise of the seed about setting it up, shown once: S17, S24 and S29 to S34."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from engine.helpers import SOON
from psycopg_pool import AsyncConnectionPool

import piecework
from piecework import ConfigurationError, Jobs, MigrationsNeeded
from piecework.cli import main
from piecework.integrations.sql import migration_sql

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(piecework.__file__).parent


async def runs_a_job(jobs: Jobs) -> None:
    """Open it, and run a job to its end."""

    @jobs.job
    async def add(a: int, b: int) -> int:
        return a + b

    async with jobs, jobs.worker():
        assert await (await add.spawn(1, 2)).result(timeout=SOON) == 3


def test_s17_it_is_one_package_with_types() -> None:
    told = metadata("piecework")
    assert told["Name"] == "piecework"
    assert (PACKAGE / "py.typed").exists()
    always = [each for each in told.get_all("Requires-Dist") or [] if "extra ==" not in each]
    assert len(always) == 5, "what every installation gets"


async def test_s24_a_connection_string_or_a_pool_and_not_both(dsn: str) -> None:
    await runs_a_job(Jobs(dsn))
    await runs_a_job(Jobs(pool=AsyncConnectionPool(dsn, open=False, min_size=1)))
    with pytest.raises(ConfigurationError, match="pool"):
        Jobs(dsn, pool=AsyncConnectionPool(dsn, open=False))


async def test_s29_without_migrations_it_says_what_to_run(empty_dsn: str) -> None:
    with pytest.raises(MigrationsNeeded, match="piecework migrate"):
        await runs_a_job(Jobs(empty_dsn, migrate=False))


async def test_s30_the_library_migrates_with_a_connection_string_and_with_a_pool_if_it_is_told_to(
    empty_dsn: str,
) -> None:
    with pytest.raises(MigrationsNeeded):
        await runs_a_job(Jobs(pool=AsyncConnectionPool(empty_dsn, open=False, min_size=1)))
    await runs_a_job(Jobs(pool=AsyncConnectionPool(empty_dsn, open=False, min_size=1), migrate=True))
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("DROP SCHEMA piecework CASCADE")
    await runs_a_job(Jobs(empty_dsn))


async def test_s31_the_migrations_are_files_and_can_be_printed(empty_dsn: str) -> None:
    numbered = files("piecework") / "store" / "migrations" / "0001_initial.sql"
    assert "CREATE TABLE" in numbered.read_text()
    printed = CliRunner().invoke(main.command, ["migrate", "--sql"])
    assert printed.exit_code == 0
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(printed.output.encode())
    await runs_a_job(Jobs(empty_dsn, migrate=False))


async def test_s32_the_migrations_are_part_of_the_applications_own_run(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as conn:
        for statement in ["CREATE TABLE orders (id integer)", *migration_sql()]:
            conn.execute(statement.encode())
    await runs_a_job(Jobs(empty_dsn, migrate=False))


def test_s33_it_is_imported_and_jobs_are_defined_without_a_database_and_without_what_is_optional() -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from piecework import Jobs, JobRunner\n"
        "jobs = Jobs('postgresql://nobody@127.0.0.1:1/none')\n"
        "@jobs.job(key='{a}')\n"
        "async def add(a: int) -> int: return a\n"
        "print(add.spec(1).job_type)\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})\n"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    spec, imported = ran.stdout.splitlines()
    assert spec == "add"
    optional = {"asyncpg", "sqlalchemy", "sqlmodel", "django", "alembic", "psycopg2", "pg8000", "psycopg_pool",
                "pydantic", "rich", "click", "starlette"}  # fmt: skip
    assert optional & set(imported.split()) == set()


def test_s34_nothing_that_is_stored_is_ever_executed_and_the_licence_is_the_seeds() -> None:
    """The crate forbids unsafe code; what is unsafe in Python is to unpickle or evaluate what comes from a table."""
    modules, evaluating = set[str](), set[str]()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    modules |= {each.name for each in names}
                case ast.ImportFrom(module=str(module)):
                    modules.add(module)
                case ast.Call(func=ast.Name(id="eval" | "exec")):
                    evaluating.add(path.relative_to(PACKAGE).as_posix())
                case _:
                    pass
    assert modules & {"pickle", "marshal", "shelve", "dill", "cloudpickle"} == set()
    # It makes a function of the names of another function's parameters, when that one is defined.
    assert evaluating == {"work/signature.py"}
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert metadata("piecework")["License-Expression"] == "Apache-2.0"
