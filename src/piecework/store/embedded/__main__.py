"""Starts the supervisor: `python -I -S …/embedded/__main__.py HOME PROGRAMS GRACE REPORT`.

It is started as a file, and bare modules stand in for the packages above it, whose own `__init__` would import half
the library first: 0.02 s instead of several times that.
"""

import os
import sys
import types


def _run() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    for name in ("piecework.store.embedded", "piecework.store", "piecework"):
        module = types.ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module
        folder = os.path.dirname(folder)
    from piecework.store.embedded.supervisor import main

    main(sys.argv[1:])


if __name__ == "__main__":
    _run()
