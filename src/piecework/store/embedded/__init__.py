"""The embedded PostgreSQL server, shared by any number of processes.

server      what a client calls: `acquire`, `EmbeddedServer`, `remove`
binaries    where PostgreSQL's programs come from
supervisor  the detached process, one per home, that runs the server and stops it when nobody needs it
cluster     one data folder: making it, starting a server on it, telling whether the server is ready
home        the folders, the names in them, and who owns what
locks       the kernel-held locks that everything above rests on
"""

from piecework.store.embedded.server import EmbeddedServer, acquire, remove

__all__ = ["EmbeddedServer", "acquire", "remove"]
