"""Run seeds: `python -m simulation 0..1000`, or one with its trace: `python -m simulation 17`."""

from __future__ import annotations

import sys

from simulation.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
