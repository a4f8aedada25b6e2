"""What the fault proxy can do to a connection, and when."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")
Direction: TypeAlias = Literal["to_server", "to_client"]
Moment: TypeAlias = Literal["request", "answer", "middle", "after"]
"""When a trap breaks the connection.

`request`: the server never hears of the statement. `answer`: the server has done it, and committed it unless a
transaction block is open, and the client does not hear of it. `middle`: the same, and the client has half of the
answer. `after`: the client has the whole answer.
"""

BOTH: tuple[Direction, ...] = ("to_server", "to_client")
_PATIENCE = 10.0


@dataclass(eq=False)
class Trap:
    """Breaks a connection at `moment` of a statement in whose text `statement` is found.

    Where `answer` is given, only if it is found in the bytes of the answer as well.
    """

    moment: Moment
    statement: re.Pattern[bytes]
    answer: re.Pattern[bytes] | None
    left: int
    """How many connections it will still break; may be set."""
    hits: int = 0
    """How many it has broken."""

    def springs(self, answer: bytes) -> bool:
        """Whether it breaks the connection now; if so that is counted."""
        if self.left <= 0 or (self.answer is not None and not self.answer.search(answer)):
            return False
        self.left -= 1
        self.hits += 1
        return True


@dataclass
class Weather:
    """What a way is like, in one direction."""

    swallows: bool = False
    freezes: bool = False
    delay: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def clear_up(self) -> None:
        """Let everything through again."""
        self.swallows, self.freezes, self.delay = False, False, 0.0
        self.changed.set()


class Faults(ABC):
    """What can be done to one connection as to all, from any thread: it has taken effect when the call returns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def cut(self) -> None:
        """Break it: both ends see an end of file."""
        self.do(lambda: self.break_off(reset=False))

    def reset(self) -> None:
        """Break it by a TCP reset: both ends see an error. A Unix socket knows no reset and is cut."""
        self.do(lambda: self.break_off(reset=True))

    def black_hole(self, *directions: Direction) -> None:
        """Swallow what is sent, in both directions unless said otherwise, and that an end closes: nobody is told."""
        self.do(lambda: [self.change(each, swallows=True) for each in directions or BOTH])

    def freeze(self, *directions: Direction) -> None:
        """Pass nothing on until `heal`, in both directions unless said otherwise; nothing is lost."""
        self.do(lambda: [self.change(each, freezes=True) for each in directions or BOTH])

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Pass everything on so much later, in both directions unless said otherwise."""
        self.do(lambda: [self.change(each, delay=seconds) for each in directions or BOTH])

    def heal(self) -> None:
        """Pass everything on again. A connection of which something was swallowed is reset: there is a gap in it."""
        self.do(self.clear_up)

    def do(self, call: Callable[[], T]) -> T:
        """Call something in the proxy's thread, and return what it returns."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(call())
            except Exception as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(_PATIENCE)

    @abstractmethod
    def break_off(self, *, reset: bool) -> None:
        """In the proxy's thread: end both sides."""

    @abstractmethod
    def change(self, direction: Direction, **what: float) -> None:
        """In the proxy's thread: change attributes of `Weather`."""

    @abstractmethod
    def clear_up(self) -> None:
        """In the proxy's thread: what `heal` does."""
