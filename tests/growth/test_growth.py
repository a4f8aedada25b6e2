"""What is measured as work grows, and how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from bench import summary
from bench.goals import Files
from bench.growth import plots, report, run
from bench.growth.run import Growth, Plan, Result
from bench.growth.sampling import kind
from bench.peers.measure import Ring
from bench.server import Server

NOBODY = cast("Server", None)
MACHINE: dict[str, object] = {
    "date": "2026-01-01", "cores": 2, "processor": "a processor", "postgresql": "18", "load": 0.1
}  # fmt: skip


def figures(rate: float, server: float = 12.0) -> dict[str, float | None]:
    return {
        "jobs_per_s": rate, "worker_cpu_us": 10.0, "server_cpu_us": server, "claim cpu_us": 6.0, "settle cpu_us": 4.0,
        "background cpu_us": 1.0, "wal_bytes": 700.0, "flushes": 0.002, "claim buffers": 5.0, "settle buffers": 4.0,
        "statements": 0.004, "executed": 100.0, "runnable": 4.0, "samples": 50.0, "waiting: Lock extend": 0.25,
    }  # fmt: skip


def result() -> Result:
    spawn: dict[str, float | None] = {
        "bulk_client_cpu_us": 6.0, "bulk_server_cpu_us": 8.0, "bulk_wal_bytes": 400.0
    }  # fmt: skip
    return {
        "machine": MACHINE, "plan": {"rounds": 2}, "flush_seconds": 0.001, "failures": ["keys 1, round 2: time was up"],
        "figures": {
            "processes 8": [figures(60_000), figures(90_000)], "processes 1": [figures(40_000), figures(30_000)],
            "backlog 0": [figures(40_000), {}], "backlog 10000000": [figures(30_000, 15.0), figures(1.0)],
            "keys 0": [figures(40_000)], "keys 1": [{}], "spawn": [spawn],
        },
    }  # fmt: skip


def test_a_process_of_the_server_is_known_by_the_function_that_it_calls() -> None:
    header = "-- Settle claims of a worker.\n-- params: $1 worker uuid\n"
    assert kind("client backend", f'{header}SELECT "piecework".settle_keyed_1($1::uuid)') == "settle"
    assert kind("client backend", '-- Claim.\nSELECT "piecework".claim_1($1::uuid)') == "claim"
    assert kind("client backend", "-- Claims, settled or not.\nSELECT count(*) FROM jobs") == "other sessions"
    assert kind("walwriter", "") == "background"


def test_ratios_are_made_of_rounds_in_which_both_sizes_came_to_their_end() -> None:
    assert report.ratios(result(), "processes", 8, 1, "jobs_per_s") == [1.5, 3.0]
    assert report.ratios(result(), "backlog", 10_000_000, 0, "jobs_per_s") == [0.75]


def test_sizes_stand_in_their_order_and_what_failed_is_named() -> None:
    text = report.render(result())
    assert text.index("| 1         |") < text.index("| 8         |")
    assert "75,000 (60,000–90,000) | 2.25 (1.50–3.00) |" in text
    assert "- Failed: keys 1, round 2: time was up" in text
    for cores in (2, 8, 32, 96):
        assert f"\n| {cores} " in text, "the model has a row"


def test_a_shape_without_figures_has_no_model_and_no_table() -> None:
    empty: Result = {**result(), "figures": {"keys 1": [{}]}}
    text = report.render(empty)
    assert "### Worker processes" not in text
    assert "by a model" not in text


def test_the_plots_are_drawn_also_where_a_size_failed(tmp_path: Path) -> None:
    drawn = plots.draw(result(), tmp_path)
    assert [path.name for path in drawn] == ["growth-processes.svg", "growth-backlog.svg", "growth-keys.svg"]
    assert all(path.read_text().rstrip().endswith("</svg>") for path in drawn)
    again = [path.read_text() for path in plots.draw(result(), tmp_path)]
    assert again == [path.read_text() for path in drawn], "the same figures make the same file"


def test_the_summary_says_what_growth_costs() -> None:
    text = summary.summary(Files(growth=result()), [])
    assert "8 worker processes on the same cores end 75,000 jobs a second, 2.25 times as many as one." in text
    assert "With 10,000,000 more jobs waiting a job costs the server 1.25 times the CPU" in text


def test_a_size_that_fails_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def processes(_: Growth, count: int) -> dict[str, float | None]:
        if count == 4:
            raise OSError("no room")
        return figures(1.0)

    kept: list[int] = []
    monkeypatch.setattr(run, "machine", lambda _: dict(MACHINE))
    monkeypatch.setattr(run, "flush_seconds", lambda _: 0.001)
    monkeypatch.setattr(Ring, "enter", lambda *_: "1")
    monkeypatch.setattr(Growth, "_processes", processes)
    growth = Growth(NOBODY, Plan(rounds=2, processes=(1, 4)), lambda result: kept.append(len(result["figures"])))
    found = growth.measure(["processes"])
    assert found["figures"]["processes 4"] == [{}, {}]
    assert [bool(each) for each in found["figures"]["processes 1"]] == [True, True]
    assert found["failures"] == [f"processes 4, round {turn}: OSError: no room" for turn in (1, 2)]
    assert len(kept) == 5, "after each measurement, and at the end"


def test_a_backlog_for_which_there_is_no_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "machine", lambda _: dict(MACHINE))
    monkeypatch.setattr(run, "flush_seconds", lambda _: 0.001)
    monkeypatch.setattr(Ring, "enter", lambda *_: "1")
    found = Growth(NOBODY, Plan(rounds=1, backlogs=(10**15,))).measure(["backlog"])
    assert "1,000,000,000,000,000 jobs want" in found["failures"][0]
