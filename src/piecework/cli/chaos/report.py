"""How the result of a chaos run is told: at a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import click

from piecework.cli.chaos.verdict import ChaosReport, FaultReport
from piecework.cli.output import Column, print_table
from piecework.testing.history import Report

_COLUMNS = (
    "fault", "times", "cut short", "first job after it", "at worst", "given back, at worst", "lost", "doubled",
    "refused",
)  # fmt: skip


def print_report(report: ChaosReport) -> None:
    """Print what came of a run."""
    click.echo()
    print_table([Column(name, right=at > 0, whole=True) for at, name in enumerate(_COLUMNS)], _rows(report.faults))
    click.echo()
    click.echo(summary(report))
    for what, found in report.must_be_none.items():
        if found:
            click.echo(f"FOUND {found:>6}  {what}")
    for text in report.violations:
        click.echo(text)
    for name, why in report.skipped.items():
        click.echo(f"Not done: {name}, since {why}")
    click.echo("Nothing was lost, nothing was doubled." if report.status == "ok" else "What must not be has happened.")


def print_check(report: Report) -> None:
    """Print what a history came to."""
    click.echo(f"{report.jobs:,} jobs: {_listed(report.statuses)}; attempts: {_listed(report.attempts)}")
    for violation in report.violations:
        click.echo("\n".join([str(violation), *(f"  {record}" for record in violation.evidence)]))
    for rule, found in report.counts.items():
        click.echo(f"FOUND {found:>6}  {rule}")
    click.echo("All rules hold." if report.holds else "What must not be has happened.")


def summary(report: ChaosReport) -> str:
    """Say in a few sentences what ran."""
    within = report.drained_in
    drained = "not all had ended" if within is None else f"the rest had ended within {within:.0f} s"
    exits = ", ".join(f"{times} with {code}" for code, times in report.exits.items())
    forgotten = f" {report.forgotten} accepted jobs were forgotten by failovers." if report.forgotten else ""
    return (
        f"Seed {report.seed}, {report.seconds:.0f} s, lease {report.lease:g} s, PostgreSQL {report.postgresql}; "
        f"{report.workers} workers and {report.spawners} spawners at a time, {_listed(report.started)} in all "
        f"(workers ended: {exits}). {report.jobs:,} jobs ({report.accepted:,} accepted), {report.runs:,} runs, "
        f"{report.effects:,} effects: {_listed(report.statuses)}; attempts: {_listed(report.attempts)}. "
        f"{report.taken_over} runs were taken over, {report.refused} late ends refused.{forgotten} "
        f"After the last fault {drained}."
    )


def markdown(reports: Sequence[ChaosReport]) -> list[str]:
    """Return the lines of a page about the runs of several seeds."""
    failed = [str(report.seed) for report in reports if report.status != "ok"]
    lines = [
        f"{len(reports)} runs with the seeds {', '.join(str(report.seed) for report in reports)}, "
        f"{sum(report.seconds for report in reports) / 60:.0f} minutes of faults in all; "
        + (f"failed: {', '.join(failed)}." if failed else "all of them held.")
        + f" Failovers to the asynchronous standby have forgotten {sum(report.forgotten for report in reports):,} "
        "accepted jobs, as such failovers do.",
        "", "| Fault | Times | Cut short | First job after it, s | At worst | Claims given back after, at worst, s "
        "| Jobs lost | Doubled | Late ends refused |", "|---|---|---|---|---|---|---|---|---|",
        *[f"| {' | '.join(row)} |" for row in _rows(merged([each for report in reports for each in report.faults]))],
        "", "| Must be none | Found |", "|---|---|",
        *[f"| {what} | {found} |" for what, found in _sum(report.must_be_none for report in reports).items()], "",
        *[f"- {summary(report)}" for report in reports],
    ]  # fmt: skip
    skipped = {name: why for report in reports for name, why in report.skipped.items()}
    return lines + [f"- Not done: {name}, since {why}." for name, why in skipped.items()]


def merged(reports: Sequence[FaultReport]) -> list[FaultReport]:
    """Return one report for each kind of fault: of the medians the one in the middle."""
    by_name: dict[str, list[FaultReport]] = {}
    for report in reports:
        by_name.setdefault(report.name, []).append(report)

    def worst(values: Sequence[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    result: list[FaultReport] = []
    for name, each in sorted(by_name.items()):
        firsts = sorted(report.first_job for report in each if report.first_job is not None)
        result.append(FaultReport(
            name=name, times=sum(report.times for report in each), cut_short=sum(report.cut_short for report in each),
            first_job=firsts[len(firsts) // 2] if firsts else None,
            first_job_worst=worst([report.first_job_worst for report in each]),
            given_back_worst=worst([report.given_back_worst for report in each]),
            lost=sum(report.lost for report in each), doubled=sum(report.doubled for report in each),
            refused=sum(report.refused for report in each),
        ))  # fmt: skip
    return result


def _rows(reports: Sequence[FaultReport]) -> list[list[str]]:
    def seconds(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    return [
        [each.name, str(each.times), str(each.cut_short), seconds(each.first_job), seconds(each.first_job_worst),
         seconds(each.given_back_worst), str(each.lost), str(each.doubled), str(each.refused)]
        for each in reports
    ]  # fmt: skip


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            total[name] = total.get(name, 0) + number
    return total


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items())) or "none"
