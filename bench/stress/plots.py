"""The plot of the stress shapes: what is left of each contestant's rate."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from bench.peers.plots import OWN, YARDSTICK, save
from bench.stress.measure import OURS
from bench.stress.report import Result, contestants, known, values

MARKS = ("o", "s", "^", "D", "v", "P", "X")
COLORS = ("#d9a441", "#b5553c", "#6a8f4f", "#8a6fae", "#4f7fbf", "#777777")
SHOWN_UP_TO = 1.3


def draw(result: Result, folder: Path) -> Path:
    """Draw it into the folder: medians; of piecework also a line from the lowest to the highest round."""
    folder.mkdir(exist_ok=True)
    shapes = [
        (found["title"] or shape.name, found["outcomes"])
        for shape, found in known(result)
        if any(values(outcome, "factor") for outcome in found["outcomes"].values())
    ]
    names = contestants(result)
    figure = Figure(figsize=(9, 1.2 + 0.34 * len(shapes)))
    axes = figure.subplots()
    axes.axvline(1, color=YARDSTICK, lw=0.8)
    for order, name in enumerate(reversed(names)):
        ours = name == OURS
        color = OWN if ours else COLORS[order % len(COLORS)]
        found = [(place, values(outcomes.get(name), "factor")) for place, (_, outcomes) in enumerate(reversed(shapes))]
        points = [(place, each) for place, each in found if each]
        axes.scatter(
            [min(statistics.median(each), SHOWN_UP_TO) for _, each in points], [place for place, _ in points],
            color=color, marker="o" if ours else MARKS[1 + order % (len(MARKS) - 1)], s=46 if ours else 26, label=name,
            zorder=3 if ours else 2, alpha=1 if ours else 0.85,
        )  # fmt: skip
        if ours:
            for place, each in points:
                axes.plot([min(each), min(max(each), SHOWN_UP_TO)], [place, place], color=color, lw=1.2)
    axes.set_yticks(range(len(shapes)), [title for title, _ in reversed(shapes)])
    axes.set_xlim(0, SHOWN_UP_TO + 0.02)
    axes.set_xlabel(f"rate ÷ that of the plain run (over {SHOWN_UP_TO}: at the edge)")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=4, frameon=False)
    figure.tight_layout()
    return save(figure, folder / "stress.svg")
