"""Puts a comparison into docs/performance.md and its plots into docs/plots."""

from __future__ import annotations

from bench.child import ROOT
from bench.peers import goals, plots, report
from bench.report import Result as OwnResult
from bench.report import put_between_markers


def add(text: str, result: report.Result, own: OwnResult) -> str:
    """Draw the plots, and return the document with the tables in it."""
    plots.draw(result, ROOT / "docs" / "plots")
    return put_between_markers(text, report.render(result, goals.table(result, own)), report.BEGIN, report.END)
