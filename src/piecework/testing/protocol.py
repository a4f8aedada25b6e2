"""As much of PostgreSQL's wire protocol as it takes to know what is asked, and when it has been answered."""

from __future__ import annotations


class Requests:
    """Follows what a client sends. The messages of an encrypted connection cannot be read."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False
        self._texts: dict[bytes, bytes] = {}
        self._asked = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the statements whose execution `data` asks for, each with the number of the answer that ends it."""
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        while (message := self._next()) is not None:
            kind, body = message
            match kind:
                case b"" | b"S":  # the start of the session, the end of a series of messages
                    self._asked += 1
                case b"Q":
                    self._asked += 1
                    found.append((self._asked, body.rstrip(b"\0")))
                case b"P":
                    name, text = body.split(b"\0", 2)[:2]
                    self._texts[name] = text
                case b"B":
                    name = body.split(b"\0", 2)[1]
                    found.append((self._asked + 1, self._texts.get(name, b"")))
                case _:
                    pass
        return found

    def _next(self) -> tuple[bytes, bytes] | None:
        typed = int(self._started)  # the first message has no type
        if len(self._buffer) < typed + 4:
            return None
        end = typed + int.from_bytes(self._buffer[typed : typed + 4])
        if len(self._buffer) < end:
            return None
        kind, body = bytes(self._buffer[:typed]), bytes(self._buffer[typed + 4 : end])
        del self._buffer[:end]
        self._started = True
        return kind, body


class Answers:
    """Follows what a server sends."""

    def __init__(self) -> None:
        self.count = 0
        """How often the server has said that it is ready for the next request."""
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        at = 0
        while at < len(data):
            if len(self._head) < 5:
                more = data[at : at + 5 - len(self._head)]
                self._head += more
                at += len(more)
                if len(self._head) == 5:
                    self._left = int.from_bytes(self._head[1:]) - 4
            else:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            if len(self._head) == 5 and not self._left:
                self.count += self._head[:1] == b"Z"
                self._head = b""
