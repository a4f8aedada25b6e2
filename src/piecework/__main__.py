"""`python -m piecework` is the command `piecework`."""

from __future__ import annotations

from piecework.cli.main import main

main()
