"""The server of this world and the ways to it: sessions that run statements step by step, connections that break."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from piecework.store.connection import Wire, translated
from piecework.store.statements import Statements
from piecework.testing.memory.database import Database
from piecework.testing.memory.rows import Steps, Table, Transaction
from piecework.testing.memory.statements import STATEMENTS
from simulation.world import EPOCH, Process, World

STATEMENTS_OF = Statements("piecework")
NAMES = {STATEMENTS_OF.sql(name): name for name in STATEMENTS}
JOINED = {STATEMENTS_OF.sql_for(name, "$1"): name for name in ("guard", "complete", "spawn", "save_state", "report")}
LATENCY, STEP = 2e-4, 2e-4
_KEEPALIVE, _CONNECT_TIMEOUT = 10.0, 5.0


@dataclass
class Weather:
    """How likely what goes wrong is, per statement; and how the server does."""

    request_lost: float = 0.0
    reply_lost: float = 0.0
    backend_killed: float = 0.0
    silent: float = 0.0
    """The connection swallows all from then on; nobody is told."""
    slow: float = 0.0
    slow_by: float = 1.0
    until: float = 0.0
    """When all of it is over."""
    notice_lost: float = 0.0
    refused: float = 0.0
    """A connection is not made."""
    pinned: float = 0.0
    """Somebody's snapshot keeps dead rows: a claim from the very start of a lane passes over many."""
    counts: dict[str, int] = field(default_factory=dict)

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        for name in ("request_lost", "reply_lost", "backend_killed", "silent", "slow", "notice_lost", "refused"):
            setattr(self, name, 0.0)


class SimDatabase(Database):
    """The database in memory, with someone who looks at each commit."""

    def __init__(self, world: World) -> None:
        self.skew = 0.0
        self.effects = Table(by="id")
        self.committed: Callable[[Transaction], None] = lambda txn: None
        self._world = world
        super().__init__(lambda: int((EPOCH + world.now + self.skew) * 1e6), world.chance)

    def begin(self) -> Transaction:
        txn = SimTransaction(self._number)
        txn.began = self._world.now
        return txn

    def commit(self, txn: Transaction) -> None:
        before = {row: row.committed for row in txn._written}
        super().commit(txn)
        txn.before = before
        self.committed(txn)


class SimTransaction(Transaction):
    __slots__ = ("before", "began")


class Server:
    """A PostgreSQL server."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.down_until = -1.0
        self.sessions: list[Session] = []
        self.database = SimDatabase(world)
        self.database.listeners.append(self._notify)
        self.database.walk = self._walk
        self.deadlocks = 0

    @property
    def up(self) -> bool:
        return self.world.now >= self.down_until

    def happens(self, kind: str) -> bool:
        """Whether this goes wrong now."""
        likely = getattr(self.weather, kind)
        if likely <= 0.0 or self.world.chance.random() >= likely:
            return False
        self.weather.counts[kind] = self.weather.counts.get(kind, 0) + 1
        return True

    def _walk(self, whole: bool) -> tuple[int, int]:
        if self.weather.pinned <= 0.0:
            return 0, 0
        passed = int(self.world.chance.expovariate(1.0) * (30_000 if whole else 1_000))
        return passed, passed * 2

    def crash(self, seconds: float) -> None:
        """Be killed, and come back after a while."""
        self.world.say("server down", seconds)
        self.down_until = self.world.now + seconds
        for session in list(self.sessions):
            session.die()

    def _notify(self, payload: str) -> None:
        for session in self.sessions:
            if session.listening and not session.dead:
                if self.happens("notice_lost"):
                    continue
                conn = session.conn
                self.world.later(LATENCY, lambda conn=conn: conn.receive(payload))


def _effect(database: Database, txn: Transaction, job_id: str, claim_no: int, process: str) -> Steps[Any]:
    """Somebody's own write: it has nothing to do with piecework, but for the transaction that it is in."""
    yield None
    database.append(txn, cast("SimDatabase", database).effects, job_id, {
        "id": job_id, "claim_no": claim_no, "process": process, "at": database.clock(),
    })  # fmt: skip
    return []


ALL: dict[str, Callable[..., Steps[Any]]] = {**STATEMENTS, "EFFECT": _effect}


class Session:
    """A back end: runs one statement after the other, each in a transaction of its own unless one was begun."""

    def __init__(self, server: Server, conn: SimConnection) -> None:
        self.server = server
        self.world = server.world
        self.conn = conn
        self.dead = False
        self.listening = False
        self.txn: Transaction | None = None
        self.explicit = False
        self.failed = False
        self.running: Running | None = None
        server.sessions.append(self)

    def die(self) -> None:
        """End: what runs is undone, and the client is told unless its connection is silent."""
        if self.dead:
            return
        self.dead = True
        self.server.sessions.remove(self)
        running, self.running = self.running, None
        if running is not None:
            running.over = True
            running.steps.close()
        if self.txn is not None and not self.txn.over:
            self.server.database.abort(self.txn)
        self.world.later(LATENCY, self.conn.broken)

    def client_gone(self) -> None:
        """The client has ended or severed the connection: what runs is finished first, nobody reads the reply."""
        if self.running is None:
            self.die()

    def run(self, call: Call) -> None:
        """Begin with a statement that has arrived."""
        if self.dead:
            self.world.later(LATENCY, self.conn.broken)
            return
        if self.failed and call.name != "ROLLBACK":
            call.fail(psycopg.errors.InFailedSqlTransaction("current transaction is aborted"))
            return
        if self.txn is None:
            self.txn = self.server.database.begin()
        if call.name == "BEGIN":
            self.explicit = True
            self._reply(call, [])
        elif call.name == "ROLLBACK":
            self.server.database.abort(self.txn)
            self.txn, self.explicit, self.failed = None, False, False
            self._reply(call, [])
        elif call.name == "COMMIT":
            self.explicit = False
            self._commit(call, [])
        elif call.name == "LISTEN":
            self.listening = True
            self._commit(call, [])
        elif call.name == "SELECT 1":
            self._commit(call, [(1,)])
        else:
            steps = ALL[call.name](self.server.database, self.txn, *call.params)
            self.running = Running(self, call, steps)
            self.running.step()

    def finished(self, call: Call, rows: Any) -> None:
        """Commit a statement that stands for itself, and answer."""
        self.running = None
        if self.explicit:
            self._reply(call, rows)
        else:
            self._commit(call, rows)

    def _commit(self, call: Call, rows: Any) -> None:
        txn, self.txn = self.txn, None
        assert txn is not None
        try:
            self.server.database.commit(txn)
        except psycopg.Error as error:
            self._refuse(call, error)
            return
        self._reply(call, rows)

    def broke(self, call: Call, error: BaseException) -> None:
        """Undo a statement that failed, or leave that to whoever began the transaction."""
        self.running = None
        assert self.txn is not None
        if self.explicit:
            self.failed = True
        else:
            self.server.database.abort(self.txn)
            self.txn = None
        self._refuse(call, error)

    def _refuse(self, call: Call, error: BaseException) -> None:
        if self.conn.closed:
            self.die()
        else:
            call.fail(error)

    def _reply(self, call: Call, rows: Any) -> None:
        if self.conn.closed:
            self.die()
        elif self.server.happens("reply_lost"):
            self.world.say("reply lost", self.conn.process.name, call.name)
            self.die()
        else:
            call.answer(rows)


class Running:
    """A statement under way."""

    def __init__(self, session: Session, call: Call, steps: Steps[Any]) -> None:
        self.session = session
        self.call = call
        self.steps = steps
        self.over = False
        self.waits_for: tuple[Transaction, ...] = ()
        self._turn = 0

    def step(self, error: BaseException | None = None) -> None:
        """Go on until others may come in between, or have to end first."""
        session, world, server = self.session, self.session.world, self.session.server
        while not self.over:
            self._turn += 1
            self.waits_for = ()
            if error is None and self.call.cancelled:
                error = psycopg.errors.QueryCanceled("canceling statement due to user request")
            try:
                if error is None:
                    wait = next(self.steps)
                else:
                    thrown, error = error, None
                    wait = self.steps.throw(thrown)
            except StopIteration as end:
                self.over = True
                session.finished(self.call, end.value)
                return
            except psycopg.Error as refused:
                self.over = True
                session.broke(self.call, refused)
                return
            if wait is not None:
                self._wait(wait.holders)
                return
            if server.happens("backend_killed"):
                world.say("back end killed", session.conn.process.name, self.call.name)
                session.die()
                return
            if server.happens("slow"):
                slow_by = world.chance.expovariate(1.0) * server.weather.slow_by
                world.at(min(world.now + slow_by, server.weather.until), self._go_on(self._turn))
                return
            if world.chance.random() < 0.5:
                world.later(STEP, self._go_on(self._turn))
                return

    def _go_on(self, turn: int) -> Callable[[], None]:
        return lambda: self.step() if not self.over and self._turn == turn else None

    def _wait(self, holders: tuple[Transaction, ...]) -> None:
        world, server = self.session.world, self.session.server
        self.waits_for = holders
        turn = self._turn
        if self._in_a_circle():
            server.deadlocks += 1
            world.say("deadlock", self.call.name)
            world.at(world.now + 1.0, lambda: self._give_up(turn, psycopg.errors.DeadlockDetected("deadlock detected")))
            return
        for holder in holders:
            holder.waiters.append(lambda: world.later(STEP, self._go_on(turn)))
        assert self.session.txn is not None
        if self.session.txn.lock_timeout is not None:
            error = psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
            world.at(world.now + self.session.txn.lock_timeout, lambda: self._give_up(turn, error))
        self.call.when_cancelled = lambda: self._go_on(turn)()

    def _give_up(self, turn: int, error: psycopg.Error) -> None:
        if not self.over and self._turn == turn:
            self.step(error)

    def _in_a_circle(self) -> bool:
        waits = {s.txn: s.running.waits_for for s in self.session.server.sessions if s.txn and s.running}
        seen: set[Transaction] = set()
        line = list(self.waits_for)
        while line:
            txn = line.pop()
            if txn is self.session.txn:
                return True
            if txn not in seen:
                seen.add(txn)
                line += waits.get(txn, ())
        return False


class Call:
    """A statement on its way, and its answer."""

    def __init__(self, conn: SimConnection, name: str, params: Sequence[Any]) -> None:
        self.conn = conn
        self.name = name
        self.params = params
        self.done = False
        self.rows: Any = None
        self.error: BaseException | None = None
        self.told: Callable[[], None] = lambda: None
        self.cancelled = False
        self.when_cancelled: Callable[[], None] = lambda: None

    def answer(self, rows: Any) -> None:
        self.conn.world.later(LATENCY, lambda: self.arrived(rows, None))

    def fail(self, error: BaseException) -> None:
        self.conn.world.later(LATENCY, lambda: self.arrived(None, error))

    def arrived(self, rows: Any, error: BaseException | None, *, by_wire: bool = True) -> None:
        if self.done or (by_wire and (self.conn.silent or self.conn.closed)):
            return
        self.done, self.rows, self.error = True, rows, error
        if self.conn.call is self:
            self.conn.call = None
        self.told()

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.rows


class Cursor:
    """What an executed statement answers."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.description = True

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None


class AsyncCursor(Cursor):
    async def fetchall(self) -> list[tuple[Any, ...]]:  # type: ignore[override]
        return self._rows

    async def fetchone(self) -> tuple[Any, ...] | None:  # type: ignore[override]
        return self._rows[0] if self._rows else None


class SimConnection:
    """One end of a connection: the client's."""

    def __init__(self, process: Process, server: Server) -> None:
        self.process = process
        self.world = process.world
        self.server = server
        self.closed = False
        self.silent = False
        self.severed = False
        self.call: Call | None = None
        self.inbox: deque[str] = deque()
        self.heard: Callable[[], None] = lambda: None
        self.session = Session(server, self)
        self.open_txn = False
        process.at_death.append(self.sever)
        process.at_partition.append(self.swallow)

    @property
    def info(self) -> Any:
        status = 4 if self.closed else 2 if self.open_txn else 0
        return SimpleNamespace(transaction_status=status, backend_pid=1)

    def send(self, name: str, params: Sequence[Any], told: Callable[[], None]) -> Call:
        """Send a statement; `told` is called when its answer is here."""
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        assert self.call is None, f"{self.call and self.call.name} is under way, and now {name}"
        call = self.call = Call(self, name, params)
        call.told = told
        partitioned = self.world.now < self.process.cut_off_until
        if not self.silent and (partitioned or self.server.happens("silent")):
            self.world.say("silent", self.process.name, name)
            self.swallow()
        if self.silent:
            if not partitioned and self.world.chance.random() < 0.5:
                self.world.later(LATENCY, lambda: self.session.run(call))
        elif self.server.happens("request_lost"):
            self.world.say("request lost", self.process.name, name)
            self.session.client_gone()
            self.world.later(LATENCY, self.broken)
        else:
            self.world.later(LATENCY, lambda: self.session.run(call))
        return call

    def swallow(self) -> None:
        """Let nothing through from now on; the kernels give up after a while, on both ends."""
        if not self.silent and not self.closed:
            self.silent = True
            self.world.at(self.world.now + _KEEPALIVE, self._give_up)

    def _give_up(self) -> None:
        if not self.silent:
            return
        self.silent = False
        self.session.client_gone()
        self.broken()

    def broken(self) -> None:
        """The other end is gone, and says so."""
        if self.silent or self.closed:
            return
        self.closed = True
        call, self.call = self.call, None
        if call is not None and not call.done:
            call.arrived(None, psycopg.OperationalError("server closed the connection unexpectedly"), by_wire=False)
        self.heard()

    def sever(self) -> None:
        """Break it from here: whoever waits for an answer is told at once."""
        if self.severed:
            return
        self.severed = True
        self.silent = False
        self.world.later(LATENCY, self.session.client_gone)
        self.broken()

    def receive(self, payload: str) -> None:
        """Take a notification."""
        if not self.closed and not self.silent:
            self.inbox.append(payload)
            self.heard()


class AsyncSimConnection(SimConnection):
    """As psycopg's AsyncConnection, as far as piecework uses it."""

    cursor_factory: Any = None
    row_factory: Any = None

    async def execute(self, sql: bytes, params: Sequence[Any] = ()) -> AsyncCursor:
        name = NAMES.get(sql) or ("LISTEN" if sql.startswith(b"LISTEN") else sql.decode())
        return AsyncCursor(await self.ask(name, params))

    async def ask(self, name: str, params: Sequence[Any] = ()) -> Any:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def told() -> None:
            loop.call_soon(lambda: None if waiter.done() else waiter.set_result(None))

        call = self.send(name, params, told)
        try:
            await waiter
        except asyncio.CancelledError:
            # psycopg asks the server to cancel, and waits for what comes of it.
            if not call.done:
                call.cancelled = True
                self.world.later(LATENCY, call.when_cancelled)
                waiter = loop.create_future()
                try:
                    async with asyncio.timeout(5.0):
                        await waiter
                except TimeoutError:
                    self.sever()
            raise
        return call.result()

    async def close(self) -> None:
        if not self.closed:
            self.sever()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        await self.ask("BEGIN")
        self.open_txn = True
        try:
            yield
        except BaseException:
            if not self.closed:
                await self.ask("ROLLBACK")
                self.open_txn = False
            raise
        await self.ask("COMMIT")
        self.open_txn = False

    async def notifies(self, *, timeout: float) -> AsyncGenerator[Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            while self.inbox:
                yield SimpleNamespace(payload=self.inbox.popleft())
            if self.closed:
                raise psycopg.OperationalError("the connection is lost")
            if loop.time() >= deadline:
                return
            waiter: asyncio.Future[None] = loop.create_future()

            def heard(waiter: asyncio.Future[None] = waiter) -> None:
                loop.call_soon(lambda: None if waiter.done() else waiter.set_result(None))

            self.heard = heard
            timer = loop.call_at(deadline, heard)
            try:
                await waiter
            finally:
                timer.cancel()
                self.heard = lambda: None


class Connection:
    """A connection of the application's own, in a transaction; of a driver that piecework knows."""

    def __init__(self, conn: AsyncSimConnection) -> None:
        self._conn = conn

    def is_closed(self) -> bool:
        return self._conn.closed

    def is_in_transaction(self) -> bool:
        return self._conn.open_txn

    def transaction(self) -> None:
        raise AssertionError("it is in one")

    async def fetchval(self, query: str, *args: Any) -> Any:
        return (await self._conn.ask(JOINED[query], args))[0][0]

    async def effect(self, job_id: str, claim_no: int, process: str) -> None:
        await self._conn.ask("EFFECT", (job_id, claim_no, process))


Connection.__module__ = "asyncpg"


@asynccontextmanager
async def own_transaction(process: Process, server: Server) -> AsyncGenerator[Connection]:
    """As an application opens a transaction on a connection of its own."""
    conn = await SimWire(process, server).connect("host=simulated", None)
    try:
        async with conn.transaction():
            yield Connection(conn)
    finally:
        await conn.close()


class BlockingSimConnection(SimConnection):
    """As psycopg's Connection, as far as piecework uses it."""

    def execute(self, sql: bytes, params: Sequence[Any] = ()) -> Cursor:
        agent = self.process.agent
        turn = agent.turn
        world = self.world
        call = self.send(NAMES[sql], params, lambda: world.at(world.now, lambda: agent.wake(turn)))
        if not call.done:
            agent.block()
        return Cursor(call.result())

    def close(self) -> None:
        if not self.closed:
            self.sever()


class SimWire(Wire):
    """The way of one process to the server."""

    def __init__(self, process: Process, server: Server) -> None:
        self._process = process
        self._server = server

    def _seconds(self) -> float:
        world = self._process.world
        if world.now < self._process.cut_off_until:
            return _CONNECT_TIMEOUT
        return world.chance.expovariate(1.0) * 10 * LATENCY

    def _refusal(self) -> psycopg.Error | None:
        if not self._server.up:
            return psycopg.OperationalError("connection refused")
        if self._process.world.now < self._process.cut_off_until or self._server.happens("refused"):
            return psycopg.OperationalError("connection timed out")
        return None

    async def connect(self, dsn: str, pins: Any) -> Any:
        with translated(dsn):
            await asyncio.sleep(self._seconds())
            if refusal := self._refusal():
                raise refusal
            conn = AsyncSimConnection(self._process, self._server)
            await conn.execute(STATEMENTS_OF.sql("pin_session"))
            return conn

    def connect_sync(self, dsn: str, pins: Any) -> Any:
        with translated(dsn):
            flag = self._process.surroundings.flag()
            flag.wait(self._seconds())
            if refusal := self._refusal():
                raise refusal
            conn = BlockingSimConnection(self._process, self._server)
            conn.execute(STATEMENTS_OF.sql("pin_session"))
            return conn

    def sever(self, conn: Any) -> None:
        conn.sever()
