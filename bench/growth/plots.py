"""The plots of growth, as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.growth.report import sizes, values
from bench.growth.run import Result
from bench.peers.plots import OWN, PEER, YARDSTICK, save

LABELS = {
    "processes": "worker processes", "backlog": "jobs that wait behind them", "keys": "concurrency keys (0: none)"
}  # fmt: skip
FAR_APART = 20
PARTS = (("worker", "worker_cpu_us", OWN), ("server", "server_cpu_us", PEER))


def draw(result: Result, folder: Path) -> list[Path]:
    """Draw a plot for each shape that was measured."""
    folder.mkdir(exist_ok=True)
    return [_draw(result, shape, folder / f"growth-{shape}.svg") for shape in LABELS if sizes(result, shape)]


def _draw(result: Result, shape: str, path: Path) -> Path:
    figure = Figure(figsize=(8.5, 3))
    rates, costs = figure.subplots(1, 2)
    all = sizes(result, shape)
    places = list(range(len(all)))
    _line(rates, places, [values(result, shape, size, "jobs_per_s") for size in all])
    rates.set_title("jobs per second", fontsize=9)
    _bars(costs, result, shape, all)
    costs.set_title("CPU per job, µs", fontsize=9)
    for axes in (rates, costs):
        axes.set_xticks(places, [_short(size) for size in all])
        axes.set_xlabel(LABELS[shape])
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return save(figure, path)


def _line(axes: Axes, places: Sequence[int], found: Sequence[Sequence[float]]) -> None:
    """Medians, and lines from the lowest to the highest round."""
    there = [(place, statistics.median(each), each) for place, each in zip(places, found, strict=True) if each]
    errors = [[median - min(each) for _, median, each in there], [max(each) - median for _, median, each in there]]
    axes.errorbar([place for place, *_ in there], [median for _, median, _ in there], yerr=errors,
                  marker="o", color=OWN, ecolor=YARDSTICK, capsize=3)  # fmt: skip
    _scale(axes, [value for _, _, each in there for value in each])
    for place, median, each in there:
        axes.annotate(f"{median:,.0f}", (place, max(each)), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.margins(x=0.12)


def _bars(axes: Axes, result: Result, shape: str, all: Sequence[int]) -> None:
    """The worker's part and the server's, side by side."""
    shown: list[float] = []
    for number, (label, key, color) in enumerate(PARTS):
        found = [statistics.median(each) if (each := values(result, shape, size, key)) else 0.0 for size in all]
        places = [place + (number - 0.5) * 0.38 for place in range(len(all))]
        axes.bar(places, found, 0.36, label=label, color=color)
        for place, height in zip(places, found, strict=True):
            if height:
                axes.annotate(
                    f"{height:,.0f}", (place, height), (0, 2), textcoords="offset points", ha="center", fontsize=7
                )
        shown += [height for height in found if height]
    _scale(axes, shown)
    axes.legend(frameon=False, fontsize=8)


def _scale(axes: Axes, shown: Sequence[float]) -> None:
    """From nought, or of logarithms where the figures are far apart; room above for what is written there."""
    if not shown:
        return
    if max(shown) > FAR_APART * min(shown):
        axes.set_yscale("log")
        axes.set_ylim(10 ** math.floor(math.log10(min(shown) / 1.5)), max(shown) * 4)
    else:
        axes.set_ylim(0, max(shown) * 1.2)


def _short(size: int) -> str:
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size:,}"
