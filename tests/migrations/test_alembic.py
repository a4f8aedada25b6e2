"""piecework's tables in Alembic's revisions (S32), by the real Alembic on a real database, with each driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from migrations.project import Project, example, lose_a_function, psql, run_a_job, schemas
from psycopg.conninfo import conninfo_to_dict

INI = """[alembic]
script_location = %(here)s/alembic
path_separator = os
"""

ENV = """import asyncio, functools, os
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, pool
from sqlalchemy.ext.asyncio import create_async_engine
from piecework.integrations import alembic as piecework

url = os.environ["URL"]
metadata = MetaData()
Table("basket", metadata, Column("id", Integer, primary_key=True))
names = {} if "SEES_ALL" in os.environ else {"include_name": piecework.include_name}
if "PARAMSTYLE" in os.environ:
    names["dialect_opts"] = {"paramstyle": os.environ["PARAMSTYLE"]}

def run(connection):
    context.configure(connection=connection, target_metadata=metadata, include_schemas=True, **names)
    with context.begin_transaction():
        context.run_migrations()

async def run_async():
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

if context.is_offline_mode():
    context.configure(url=url, target_metadata=metadata, literal_binds=True, **names)
    with context.begin_transaction():
        context.run_migrations()
elif "asyncpg" in url:
    asyncio.run(run_async())
else:
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        run(connection)
"""

REVISION = """import sqlalchemy
from alembic import op
from piecework.integrations import alembic as piecework
revision, down_revision = {revision!r}, {before!r}

def upgrade():
    {upgrade}

def downgrade():
    {downgrade}
"""

BASKET = 'op.create_table("basket", sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))'
REVISIONS = [
    ("a1", None, BASKET, 'op.drop_table("basket")'),
    ("b2", "a1", "piecework.upgrade(op)", "piecework.downgrade(op)"),
    ("c3", "b2", "piecework.upgrade(op)", "pass"),
]
FILES = {"alembic.ini": INI, "alembic/env.py": ENV, "alembic/script.py.mako": ""} | {
    f"alembic/versions/{revision}.py": REVISION.format(revision=revision, before=before, upgrade=up, downgrade=down)
    for revision, before, up, down in REVISIONS
}


def url_of(dsn: str, driver: str) -> str:
    parts = conninfo_to_dict(dsn)
    host, port = parts["host"], parts["port"]
    where = f"unix_sock={host}/.s.PGSQL.{port}" if driver == "pg8000" else f"host={host}&port={port}"
    return f"postgresql+{driver}://{parts['user']}@/{parts['dbname']}?{where}"


@pytest.fixture
def alembic(empty_dsn: str, tmp_path: Path) -> Callable[..., str]:
    """Run `alembic`, by psycopg unless said otherwise."""
    project = Project(tmp_path, FILES)

    def run(*arguments: str, driver: str = "psycopg", fails: bool = False, **environment: str) -> str:
        url = url_of(empty_dsn, driver)
        return project.python("-m", "alembic", *arguments, fails=fails, URL=url, **environment)

    return run


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "pg8000"])
def test_upgrade_makes_the_tables_and_downgrade_takes_them_away(
    empty_dsn: str, alembic: Callable[..., str], driver: str
) -> None:
    alembic("upgrade", "b2", driver=driver)
    run_a_job(empty_dsn)
    alembic("downgrade", "a1", driver=driver)
    assert schemas(empty_dsn) == ["public"]
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM basket").fetchone() == (0,)
    alembic("upgrade", "head", driver=driver)
    run_a_job(empty_dsn)
    alembic("downgrade", "base", driver=driver)
    assert schemas(empty_dsn) == ["public"]


@pytest.mark.postgres(15)
def test_it_works_on_the_oldest_postgresql(server: object, empty_dsn: str, alembic: Callable[..., str]) -> None:
    alembic("upgrade", "head")
    run_a_job(empty_dsn)
    alembic("downgrade", "base")
    assert schemas(empty_dsn) == ["public"]


def test_a_later_revision_brings_the_tables_of_an_older_release_up_to_date(
    empty_dsn: str, alembic: Callable[..., str]
) -> None:
    alembic("upgrade", "b2")
    run_a_job(empty_dsn)
    lose_a_function(empty_dsn)
    alembic("upgrade", "c3")
    run_a_job(empty_dsn)
    alembic("downgrade", "b2")  # schemas only go forward
    run_a_job(empty_dsn)


def test_a_revision_that_fails_leaves_nothing_of_it(
    empty_dsn: str, alembic: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "alembic/versions/b2.py").write_text(
        REVISION.format(revision="b2", before="a1", upgrade="piecework.upgrade(op); 1 / 0", downgrade="pass")
    )
    alembic("upgrade", "b2", fails=True)
    assert schemas(empty_dsn) == ["public"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "pg8000"])
@pytest.mark.parametrize("environment", [{}, {"PARAMSTYLE": "named"}], ids=["driver's", "named"])
def test_what_upgrade_prints_makes_the_same(
    empty_dsn: str, alembic: Callable[..., str], driver: str, environment: dict[str, str]
) -> None:
    script = alembic("upgrade", "head", "--sql", driver=driver, **environment)
    assert "%%" not in script
    psql(empty_dsn, script)
    run_a_job(empty_dsn)
    assert "(head)" in alembic("current")
    psql(empty_dsn, alembic("downgrade", "head:base", "--sql", driver=driver, **environment))
    assert schemas(empty_dsn) == ["public"]


def test_autogenerate_and_check_want_nothing_of_piecework(empty_dsn: str, alembic: Callable[..., str]) -> None:
    alembic("upgrade", "head")
    run_a_job(empty_dsn)
    assert "No new upgrade operations detected" in alembic("check")
    # Without the rule it would be dropped: that is what the rule is for.
    assert "piecework" in alembic("check", SEES_ALL="1", fails=True)


def test_autogenerate_still_sees_the_applications_tables(empty_dsn: str, alembic: Callable[..., str]) -> None:
    alembic("upgrade", "head")
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("CREATE TABLE public.jobs (id integer); CREATE TABLE piecework.mine (id integer)")
    complaint = alembic("check", fails=True)
    assert "jobs" in complaint
    assert "mine" in complaint
    assert "finished_jobs" not in complaint


def test_another_schema_is_left_out_by_a_rule_of_ones_own(empty_dsn: str, tmp_path: Path) -> None:
    rule = "functools.partial(piecework.include_name, schema='other')"
    files = FILES | {
        "alembic/env.py": ENV.replace("piecework.include_name", rule),
        "alembic/versions/b2.py": REVISION.format(
            revision="b2", before="a1", upgrade="piecework.upgrade(op, schema='other')",
            downgrade="piecework.downgrade(op, schema='other')",
        ),
    }  # fmt: skip
    files.pop("alembic/versions/c3.py")
    project = Project(tmp_path, files, URL=url_of(empty_dsn, "psycopg"))
    project.python("-m", "alembic", "upgrade", "head")
    run_a_job(empty_dsn, "other")
    assert "No new upgrade operations detected" in project.python("-m", "alembic", "check")
    project.python("-m", "alembic", "downgrade", "base")
    assert schemas(empty_dsn) == ["public"]


def test_the_revision_of_the_guide_works(empty_dsn: str, tmp_path: Path) -> None:
    revision = example("from alembic import op\n")
    files = {name: text for name, text in FILES.items() if "versions" not in name}
    project = Project(tmp_path, files | {"alembic/versions/it.py": revision}, URL=url_of(empty_dsn, "psycopg"))
    project.python("-m", "alembic", "upgrade", "head")
    run_a_job(empty_dsn)
    project.python("-m", "alembic", "downgrade", "base")
    assert schemas(empty_dsn) == ["public"]
