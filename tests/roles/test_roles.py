"""The roles of docs/security.md, as they are printed there: what they may do, and what they may not."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from click.testing import CliRunner
from engine.helpers import SOON, query, value

from piecework import CurrentJob, Jobs, PermissionDenied, RetrySettings, WorkerSettings, new_id
from piecework.cli import main
from piecework.model.job import NewJob
from piecework.store.store import Store
from support.databases import Server

TEXT = (Path(__file__).parent.parent.parent / "docs" / "security.md").read_text()
SCRIPTS = re.findall(r"^```sql\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@dataclass
class Roles:
    """DSNs of the same database."""

    owner: str
    spawner: str
    worker: str
    nobody: str
    superuser: str


@pytest.fixture
def roles(server: Server, empty_dsn: str) -> Iterator[Roles]:
    """An owner that is no superuser has migrated, and the documents' SQL was run as that owner."""
    mark = uuid.uuid4().hex[:8]
    names = {name: f"{name}_{mark}" for name in ("owner", "spawner", "worker", "nobody")}
    database = psycopg.conninfo.conninfo_to_dict(empty_dsn)["dbname"]
    dsns = {name: empty_dsn.replace("user=postgres", f"user={role}") for name, role in names.items()}
    for role in names.values():
        server.admin.execute(f"CREATE ROLE {role} LOGIN".encode())
    server.admin.execute(f"ALTER ROLE {names['owner']} CREATEROLE".encode())
    server.admin.execute(f"GRANT CREATE ON DATABASE {database} TO {names['owner']}".encode())
    try:
        asyncio.run(_migrate(dsns["owner"]))
        for script in SCRIPTS:
            text = re.sub(r"piecework_(spawner|worker)", rf"piecework_\1_{mark}", script)
            with psycopg.connect(dsns["owner"], autocommit=True) as conn:
                conn.execute(text.encode())
        for name in ("spawner", "worker"):
            server.admin.execute(f"GRANT piecework_{name}_{mark} TO {names[name]}".encode())
        yield Roles(**dsns, superuser=empty_dsn)
    finally:
        with psycopg.connect(empty_dsn, autocommit=True) as conn:
            groups = [f"piecework_{name}_{mark}" for name in ("spawner", "worker")]
            for role in (*groups, *names.values()):
                if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                    conn.execute(f"DROP OWNED BY {role} CASCADE".encode())
                    conn.execute(f"DROP ROLE {role}".encode())


async def _migrate(dsn: str) -> None:
    store = Store(dsn)
    await store.open(migrate=True)
    await store.close()


def test_there_are_two_scripts() -> None:
    assert [re.findall(r"CREATE ROLE (\w+)", script) for script in SCRIPTS] == [
        ["piecework_spawner"], ["piecework_worker"],
    ]  # fmt: skip


@pytest.mark.postgres(18, 15)
async def test_all_ways_to_spawn_are_open_to_it_and_run_on_a_worker_of_the_other_role(roles: Roles) -> None:
    async with Jobs(roles.spawner) as spawning, Jobs(roles.worker) as working:

        @spawning.job(key="{number}")
        async def keyed(number: int) -> int: ...

        @spawning.job
        async def work(number: int) -> int: ...

        one = await work.spawn(1)
        many = await spawning.spawn_all([work.spec(number) for number in range(2_500)])
        chosen = await work.options(id=new_id()).spawn(2)
        first, second = await keyed.spawn(1), await keyed.spawn(1)
        assert (first.created, second.created, second.id) == (True, False, first.id)
        async with await psycopg.AsyncConnection.connect(roles.spawner) as conn:
            joined = await work.options(conn=conn).spawn(3)
        sql = """SELECT id, created FROM piecework.spawn('{"job_type": "work", "config": {"number": 4}}')"""
        [(by_sql, created)] = query(roles.spawner, sql)
        assert created

        done: list[int] = []

        @working.job("work")
        async def runs(number: int) -> int:
            done.append(number)
            return number

        @working.job("keyed")
        async def runs_keyed(number: int) -> int:
            return number

        async with working.worker():
            ids = [one.id, chosen.id, first.id, joined.id, by_sql, *(handle.id for handle in many)]
            await working.handles(ids).wait(timeout=SOON)
    assert len(done) == 2_504


async def test_who_may_spawn_may_do_nothing_else(roles: Roles) -> None:
    async with Jobs(roles.spawner) as jobs:

        @jobs.job
        async def work(secret: str) -> None: ...

        handle = await work.spawn("hidden")
        for refused in (
            handle.load(), handle.cancel(), handle.retry(), jobs.find(handle.id), handle.wait(timeout=SOON),
            jobs.set_concurrency_limit("k", 1), _work(jobs),
        ):  # fmt: skip
            with pytest.raises(PermissionDenied):
                await refused
    for statement in (
        "SELECT * FROM piecework.jobs", "SELECT config FROM piecework.finished_jobs", "DELETE FROM piecework.jobs",
        "INSERT INTO piecework.jobs (id, job_type, config) VALUES (gen_random_uuid(), 'x', '{}')",
        "SELECT * FROM piecework.migrations", "SELECT * FROM piecework.workers", "SELECT piecework.add_partitions_1(3)",
        "SELECT piecework.spawn_keyed_1('[{\"key\": \"a\"}]')", "CREATE TABLE piecework.mine ()",
        "SELECT piecework.rescue_1(gen_random_uuid(), 1, interval '1 s')",
    ):  # fmt: skip
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)):
            query(roles.spawner, statement.replace("%", "%%"))


async def _work(jobs: Jobs) -> None:
    async with jobs.worker():
        pass


async def test_errors_tell_a_spawner_nothing_of_the_jobs_of_others(roles: Roles) -> None:
    hidden = str(new_id())
    job = {"job_type": "work", "config": {"password": "hunter2"}, "id": hidden, "key": "k", "tags": ["private"]}
    spawn = "SELECT id, created FROM piecework.spawn(%s)"
    query(roles.owner, spawn, msgspec.json.encode(job).decode())
    mine = {"job_type": "work", "config": {}}
    for changed in ({"id": hidden}, {"id": hidden, "key": "other"}, {"priority": 10**9}, {"id": "x"}):
        with pytest.raises(psycopg.Error) as error:
            query(roles.spawner, spawn, msgspec.json.encode(mine | changed).decode())
        diag = error.value.diag
        told = " ".join(str(part) for part in (error.value, diag.message_detail, diag.message_hint, diag.context))
        assert "hunter2" not in told
        assert "private" not in told
    [(holder, created)] = query(roles.spawner, spawn, msgspec.json.encode(mine | {"key": "k"}).decode())
    assert (str(holder), created) == (hidden, False)


async def test_who_may_not_even_spawn_is_refused_when_it_opens_and_by_sql(roles: Roles) -> None:
    with pytest.raises(PermissionDenied):
        async with Jobs(roles.nobody):
            pass
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(roles.nobody, """SELECT piecework.spawn('{"job_type": "work"}')""")
    query(roles.superuser, f"GRANT USAGE ON SCHEMA piecework TO {query(roles.nobody, 'SELECT current_user')[0][0]}")
    for name in ("spawn", "spawn_1"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(roles.nobody, f"""SELECT piecework.{name}('[]')""")
    with pytest.raises(PermissionDenied, match="docs/security"):
        async with Jobs(roles.nobody):
            pass


async def test_installing_the_functions_again_keeps_the_grants_and_opens_nothing(roles: Roles) -> None:
    query(roles.owner, "UPDATE piecework.functions SET checksum = 'other'")
    await _migrate(roles.owner)
    query(roles.spawner, """SELECT piecework.spawn('{"job_type": "work"}')""")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(roles.spawner, "SELECT piecework.add_partitions_1(1)")


async def test_a_spawn_of_a_lost_answer_is_made_once_by_a_role_that_cannot_look(roles: Roles) -> None:
    job = NewJob(id=new_id(), job_type="work", config=msgspec.Raw(b"{}"))
    store = Store(roles.spawner)
    await store.open(migrate=True)
    try:
        for _ in range(2):  # once it had not landed, once it had
            assert await store._inserter._again([job]) == {}
        query(
            roles.owner, "WITH gone AS (DELETE FROM piecework.jobs RETURNING *) INSERT INTO piecework.finished_jobs "
            "(id, job_type, queue, priority, run_at, status, attempt, failures, crashes, claim_no, created_at, "
            "finished_at, config) SELECT id, job_type, queue, priority, run_at, 'completed', 1, 0, 0, 1, created_at, "
            "clock_timestamp(), config FROM gone",
        )  # fmt: skip
        assert await store._inserter._again([job]) == {}
        assert value(roles.owner, "SELECT count(*) FROM piecework.jobs") == 0
    finally:
        await store.close()


@pytest.mark.postgres(18, 15)
async def test_a_worker_of_its_role_does_all_that_workers_do(roles: Roles) -> None:
    [(leaf,)] = query(
        roles.owner,
        "SELECT 'attempts' || to_char(clock_timestamp() AT TIME ZONE 'UTC' + interval '1 day', '_YYYYMMDD')",
    )
    query(roles.owner, f"DROP TABLE piecework.{leaf}")
    async with Jobs(roles.worker) as jobs:
        started = asyncio.Event()

        @jobs.job(retry=RetrySettings(min_backoff=timedelta(milliseconds=1)))
        async def work(job: CurrentJob, number: int) -> int:
            if job.attempt == 1 and number == 3:
                raise ValueError("not at first")
            await job.save_state({"seen": number})
            await job.progress(0.5, "half")
            return number

        @jobs.job(key="only:{number}", concurrency_key="turn")
        async def only(job: CurrentJob, number: int) -> None:
            async with job.completing() as conn:
                await conn.execute("SELECT 1")

        @jobs.job
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        async with jobs.worker(WorkerSettings()):
            handles = [await work.spawn(number) for number in range(5)]
            handles_of_keyed = [await only.spawn(number) for number in range(5)]
            cancelled = await endless.spawn()
            assert [await handle.result(timeout=SOON) for handle in handles] == list(range(5))
            for handle in handles_of_keyed:
                await handle.wait(timeout=SOON)
            await started.wait()
            assert await cancelled.cancel()
            assert (await cancelled.wait(timeout=SOON)).status == "cancelled"
            await jobs.set_concurrency_limit("turn", 2)
            assert await handles[0].retry()
            assert await handles[0].result(timeout=SOON) == 0
    assert value(roles.owner, f"SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = '{leaf}'") == value(
        roles.owner, "SELECT current_user"
    )
    for statement in ("DELETE FROM piecework.migrations", "CREATE TABLE piecework.mine ()", "DROP TABLE piecework.jobs",
                      "UPDATE piecework.functions SET checksum = ''"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(roles.worker, statement)


def test_the_doctor_is_content_with_the_workers_role(roles: Roles) -> None:
    said = CliRunner().invoke(main.command, ["doctor", "--database-url", roles.worker]).output
    assert re.search(r"^ok +permissions", said, re.MULTILINE), said
    said = CliRunner().invoke(main.command, ["doctor", "--database-url", roles.spawner]).output
    assert re.search(r"^FAILED +permissions", said, re.MULTILINE), said
