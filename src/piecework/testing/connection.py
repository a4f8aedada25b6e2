"""One connection through the fault proxy."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from piecework.testing.faults import BOTH, Direction, Faults, Trap, Weather
from piecework.testing.protocol import Answers, Requests

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class End(NamedTuple):
    """One of the two sockets of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Connection(Faults):
    """One connection through a `FaultProxy`, from `FaultProxy.connections()`."""

    def __init__(self, client: End, server: End, traps: Sequence[Trap], weather: Mapping[Direction, Weather]) -> None:
        super().__init__(asyncio.get_running_loop())
        self.statements: list[bytes] = []
        """The texts that the server was asked to run, in their order."""
        self._source: dict[Direction, End] = {"to_server": client, "to_client": server}
        self._target: dict[Direction, End] = {"to_server": server, "to_client": client}
        self._weather = {each: replace(weather[each], changed=asyncio.Event()) for each in BOTH}
        self._traps = traps
        self._requests, self._answers = Requests(), Answers()
        self._armed: tuple[Trap, int] | None = None
        self._withheld = b""
        self._has_gap = False
        self._over = False

    def half_open(self, left_open: Literal["client", "server"] = "client") -> None:
        """Break it on one side only: the side that is left open hears nothing any more, and is not told why."""

        def close() -> None:
            self._has_gap = True
            for direction in BOTH:
                self.change(direction, swallows=True)
            self._target["to_server" if left_open == "client" else "to_client"].writer.transport.abort()

        self.do(close)

    def break_off(self, *, reset: bool) -> None:
        """In the proxy's thread: end both sides."""
        self._over = True
        for end in self._target.values():
            wire = end.writer.get_extra_info("socket")
            if reset and wire.family != socket.AF_UNIX and wire.fileno() >= 0:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.writer.transport.abort()
        for weather in self._weather.values():
            weather.clear_up()

    def change(self, direction: Direction, **what: float) -> None:
        """In the proxy's thread: change what one direction is like."""
        for name, value in what.items():
            setattr(self._weather[direction], name, value)

    def clear_up(self) -> None:
        """In the proxy's thread: what `heal` does."""
        if self._has_gap:
            self.break_off(reset=True)
        for weather in self._weather.values():
            weather.clear_up()

    async def serve(self) -> None:
        """Pass everything on until both sides have ended."""
        try:
            await asyncio.gather(*[self._pass(direction) for direction in BOTH])
        finally:
            self.break_off(reset=False)

    async def _pass(self, direction: Direction) -> None:
        reader, writer, weather = (
            self._source[direction].reader,
            self._target[direction].writer,
            self._weather[direction],
        )
        while not self._over:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            if weather.delay:
                await asyncio.sleep(weather.delay)
            while weather.freezes or (weather.swallows and not data):
                weather.changed.clear()
                await weather.changed.wait()
            if weather.swallows:
                self._has_gap = True
                continue
            judged = self._ask(data) if direction == "to_server" else self._answer(data)
            if self._over:
                return
            writer.write(judged)
            if not data:
                writer.close()
                return
            try:
                await writer.drain()
            except OSError:
                pass  # the other direction reads the end of it

    def _ask(self, data: bytes) -> bytes:
        for number, text in self._requests.feed(data):
            self.statements.append(text)
            for trap in self._traps:
                if trap.left <= 0 or not trap.statement.search(text):
                    continue
                if trap.moment != "request":
                    self._armed = trap, number
                elif trap.springs(b""):
                    self.break_off(reset=False)
        return data

    def _answer(self, data: bytes) -> bytes:
        self._answers.feed(data)
        if self._armed is None:
            return data
        # A long answer begins before its transaction has ended: that is over when the server is ready for the next.
        self._withheld += data
        trap, number = self._armed
        if data and self._answers.count < number:
            return b""
        answer, self._withheld, self._armed = self._withheld, b"", None
        if not data or not trap.springs(answer):
            return answer
        if trap.moment in ("middle", "after"):
            writer = self._target["to_client"].writer
            writer.write(answer if trap.moment == "after" else answer[: len(answer) // 2])
            writer.close()
            self._target["to_server"].writer.transport.abort()
            self._over = True
        else:
            self.break_off(reset=False)
        return b""
