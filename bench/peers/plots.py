"""The plots of a comparison, as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.peers.report import BARE, OURS, Column, Result, values

# Text stays text, and the file is the same for the same figures.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "piecework", "font.family": "sans-serif", "font.size": 9})
OWN, YARDSTICK, PEER = "#1f6f8b", "#8a8a8a", "#d9a441"
PLOTS = {
    "drain": (("1 process", ("drain 1",), "jobs_per_s"), ("2 processes", ("drain 2",), "jobs_per_s")),
    "steady": (("", ("steady",), "jobs_per_s"),),
    "spawn": (
        ("in bulk", ("drain 1", "drain 2"), "bulk_per_s"),
        ("one by one", ("serial",), "serial_per_s"),
        ("10 concurrent", ("c10",), "c10_per_s"),
    ),
    "latency": (("median", ("latency",), "p50_ms"), ("99 %", ("latency",), "p99_ms")),
}
TITLES = {
    "drain": "Drain of no-op jobs, jobs per second",
    "steady": "Steady state from an empty table: producer and worker together, jobs per second",
    "spawn": "Spawns per second",
    "latency": "From a spawn to the start of its job in an idle worker, milliseconds",
}


def draw(result: Result, folder: Path) -> list[Path]:
    """Draw all plots; medians, and lines from the lowest to the highest round."""
    folder.mkdir(exist_ok=True)
    return [_draw(result, name, folder / f"{name}.svg") for name in PLOTS]


def _draw(result: Result, name: str, path: Path) -> Path:
    parts = PLOTS[name]
    figure = Figure(figsize=(4.2 * len(parts) + 1.4 if len(parts) > 1 else 7, 0.6 + 0.27 * len(result["outcomes"])))
    places = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (title, shapes, key) in zip(places, parts, strict=True):
        _bars(axes, result, Column("", shapes, key))
        axes.set_title(title, fontsize=9)
    figure.suptitle(TITLES[name], fontsize=10)
    figure.tight_layout()
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a plot."""
    figure.savefig(path, metadata={"Date": None})
    # The file has blanks at the ends of its lines, which are of no use in a repository.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _bars(axes: Axes, result: Result, column: Column) -> None:
    """Bars on a scale of logarithms, since the contestants are up to a hundred times apart."""
    names = list(result["outcomes"])[::-1]
    for place, name in enumerate(names):
        found = values(result["outcomes"][name], column)
        if not found:
            axes.text(0.02, place, "none", transform=axes.get_yaxis_transform(), va="center", color=YARDSTICK)
            continue
        median = statistics.median(found)
        color = {OURS: OWN, BARE: YARDSTICK}.get(name, PEER)
        axes.barh(place, median, xerr=_errors(found, median), color=color, height=0.7, error_kw={"lw": 0.8})
        axes.annotate(_short(median), (max(found), place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    shown = [value for name in names for value in values(result["outcomes"][name], column)]
    if shown:
        # Whole powers of ten, so that no bar is cut to almost nothing; room on the right for the figure.
        axes.set_xlim(10 ** math.floor(math.log10(min(shown) / 1.5)), max(shown) * 4)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)


def _errors(found: Sequence[float], median: float) -> list[list[float]]:
    return [[median - min(found)], [max(found) - median]]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
