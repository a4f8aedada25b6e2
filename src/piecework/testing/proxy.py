"""A proxy in front of PostgreSQL that breaks what it is told to break, when it is told to."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import Future
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from piecework.base.errors import ConfigurationError
from piecework.testing.connection import Connection, End
from piecework.testing.faults import BOTH, Direction, Faults, Moment, Trap, Weather

_PORT = 5432


class FaultProxy(Faults):
    """Passes connections on to the PostgreSQL of `dsn` until it is told otherwise: `async with`, or `with`.

    It runs in a thread of its own: event loops, blocking code and other processes may all connect to its `dsn`. What is
    done to the proxy is done to all its connections, and to later ones too, but for `cut` and `reset`.

    Args:
        dsn: names one host: an address, or the folder of a Unix socket. Through the proxy nothing is encrypted.
        listen_in: a folder in which the proxy listens on a Unix socket; else it listens on 127.0.0.1.

    Raises:
        ConfigurationError: `dsn` names no host, or several.

    Example:
        with FaultProxy(dsn) as proxy:
            trap = proxy.trap("answer", b"INSERT INTO orders")
            ...                       # an application that connects to proxy.dsn
            assert trap.hits == 1     # it has ordered, and does not know
    """

    def __init__(self, dsn: str, *, listen_in: Path | None = None) -> None:
        parts = conninfo_to_dict(dsn)
        self._host = str(parts.get("hostaddr") or parts.get("host") or "")
        self._port = int(parts.get("port") or _PORT)
        if not self._host or "," in self._host:
            raise ConfigurationError(f"a FaultProxy leads to one host, and its DSN names {self._host or 'none'}")
        super().__init__(asyncio.new_event_loop())
        self._given = dsn
        self._listen_in = listen_in
        self._closing = asyncio.Event()
        self._connections: list[Connection] = []
        self._serving: set[asyncio.Task[object]] = set()
        self._traps: list[Trap] = []
        self._weather: dict[Direction, Weather] = {each: Weather() for each in BOTH}
        self._thread: threading.Thread | None = None
        self.dsn = ""
        """Leads through the proxy, from its start on."""

    def __enter__(self) -> FaultProxy:
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=[ready], name="fault-proxy", daemon=True)
        self._thread.start()
        ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    async def __aenter__(self) -> FaultProxy:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def connections(self, statement: bytes = b"") -> list[Connection]:
        """Return the open connections, or those that ran a statement in which this regular expression is found."""
        pattern = re.compile(statement)
        found = self.do(lambda: list(self._connections))
        return [each for each in found if not statement or any(pattern.search(text) for text in each.statements)]

    def trap(self, moment: Moment, statement: bytes, *, answer: bytes | None = None, times: int = 1) -> Trap:
        """Break the next `times` connections that run such a statement, at this moment of it.

        Args:
            moment: `request`: the server never hears of the statement. `answer`: it is done, and committed unless a
                transaction block is open, and the client does not hear of it. `middle`: the client has half of the
                answer. `after`: the client has the answer.
            statement: a regular expression that is found in the statement's text.
            answer: a regular expression that is found in the bytes of the answer.
        """
        trap = Trap(moment, re.compile(statement), None if answer is None else re.compile(answer), times)
        self.do(lambda: self._traps.append(trap))
        return trap

    def break_off(self, *, reset: bool) -> None:
        """In the proxy's thread: end all connections."""
        for each in list(self._connections):
            each.break_off(reset=reset)

    def change(self, direction: Direction, **what: float) -> None:
        """In the proxy's thread: change what one direction is like, for all and from now on."""
        for name, value in what.items():
            setattr(self._weather[direction], name, value)
        for each in self._connections:
            each.change(direction, **what)

    def clear_up(self) -> None:
        """In the proxy's thread: what `heal` does."""
        for weather in self._weather.values():
            weather.clear_up()
        for each in list(self._connections):
            each.clear_up()

    def _run(self, ready: Future[None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._main(ready))
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

    async def _main(self, ready: Future[None]) -> None:
        if self._listen_in is None:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            way: dict[str, str | int] = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
        else:
            server = await asyncio.start_unix_server(self._accept, self._listen_in / f".s.PGSQL.{_PORT}")
            way = {"host": str(self._listen_in), "port": _PORT}
        parts = {name: value for name, value in conninfo_to_dict(self._given).items() if name != "hostaddr"}
        self.dsn = make_conninfo("", **{**parts, **way, "sslmode": "disable", "gssencmode": "disable"})
        ready.set_result(None)
        await self._closing.wait()
        server.close()
        self.break_off(reset=False)
        if self._serving:
            await asyncio.wait(self._serving)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._host.startswith("/"):
                server = End(*await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}"))
            else:
                server = End(*await asyncio.open_connection(self._host, self._port))
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(End(reader, writer), server, self._traps, self._weather)
        self._connections.append(connection)
        if self._closing.is_set():
            connection.break_off(reset=False)
        try:
            await connection.serve()
        finally:
            self._connections.remove(connection)
