"""Writes docs/performance.md and the plots of docs/plots from the files of results/, as far as they are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import goals, recovery, report, summary
from bench.growth import plots as growth_plots
from bench.growth import report as growth
from bench.peers import plots
from bench.peers import report as peers
from bench.place import DOCUMENT, PLOTS, RESULTS
from bench.stress import plots as stress_plots
from bench.stress import report as stress

FILES = {"own": "latest", "compared": "peers", "stress": "stress", "growth": "growth", "recovery": "recovery"}


def read(folder: Path) -> goals.Files:
    """The files of figures."""
    return goals.Files(**{field: _read(folder / f"{name}.json") for field, name in FILES.items()})


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def sections(files: goals.Files) -> Mapping[str, str]:
    """What stands between the markers of the document, by their name."""
    found = list(goals.goals(files))
    texts = {
        "summary": summary.summary(files, found),
        "goals": f"{summary.origin(files)}\n\n{goals.table(found)}",
    }
    if files.own is not None:
        texts["bench"] = report.render(files.own)
    if files.compared is not None:
        texts["peers"] = peers.render(files.compared)
    if files.stress is not None:
        texts["stress"] = stress.render(files.stress)
    if files.growth is not None:
        texts["growth"] = growth.render(files.growth)
    if files.recovery is not None:
        texts["recovery"] = recovery.render(files.recovery)
    return texts


def render(text: str, files: goals.Files) -> str:
    """The document with the figures in it."""
    for name, section in sections(files).items():
        text = report.put_between_markers(text, section, f"<!-- {name}: begin -->", f"<!-- {name}: end -->")
    return text


def write(document: Path = DOCUMENT, folder: Path = RESULTS, drawings: Path = PLOTS) -> None:
    """Write the document and the plots."""
    files = read(folder)
    if files.compared is not None:
        plots.draw(files.compared, drawings)
    if files.stress is not None:
        stress_plots.draw(files.stress, drawings)
    if files.growth is not None:
        growth_plots.draw(files.growth, drawings)
    document.write_text(render(document.read_text(), files))
    print(f"written: {document.name}")
