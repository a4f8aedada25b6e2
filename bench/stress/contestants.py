"""Who meets the stress shapes: piecework with a driver of its own, and those others that can be filled by SQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.child import ROOT
from bench.peers.contestants import CONTESTANTS, DRIVERS, Contestant
from bench.stress.measure import OURS
from bench.stress.tables import TABLES

HERE = Path(__file__).parent


def _stressed(who: Contestant) -> Contestant:
    if who.name != OURS:
        return who
    return replace(who, driver=str(HERE / "driver.py"), env={"PYTHONPATH": f"{ROOT}:{DRIVERS}"})


CONTESTED = tuple(_stressed(who) for who in CONTESTANTS if who.name in TABLES)
NO_FILLING = "the bench has no statement that fills its tables"
NOT_HERE = {who.name: NO_FILLING for who in CONTESTANTS if who.name not in TABLES and who.name != "bare loop"}
"""Contestants of the comparison that meet no stress shape."""
