"""`piecework worker`."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from datetime import timedelta
from typing import TypedDict

import click
from typing_extensions import Unpack

from piecework.base.errors import ConfigurationError
from piecework.cli import lifeline, supervisor
from piecework.cli.target import find_jobs
from piecework.model.settings import LivenessSettings, WorkerSettings

log = logging.getLogger("piecework.worker")
_DEFAULTS = WorkerSettings()
_LEVELS = ("debug", "info", "warning", "error")
_LEFT_BEHIND = 1


class WorkerOptions(TypedDict):
    """The command's options as click hands them over."""

    target: str
    imports: tuple[str, ...]
    queues: str
    concurrency: int
    threads: int
    prefetch: int
    processes: int | None
    grace: float
    lease: float
    log_level: str
    lifeline: int | None


@click.command("worker", short_help="Run jobs until SIGTERM or Ctrl-C.")
@click.argument("target", metavar="MODULE:JOBS")
@click.option("--import", "imports", metavar="MODULE", multiple=True, help="Import this module too; repeatable.")
@click.option("--queues", metavar="A,B", default="default", show_default=True, help="Queues to take jobs from.")
@click.option("--concurrency", metavar="N", type=int, default=_DEFAULTS.concurrency, show_default=True,
              help="Jobs that run at once in one process.")
@click.option("--threads", metavar="N", type=int, default=_DEFAULTS.threads, show_default=True,
              help="Threads for `def` jobs in one process.")
@click.option("--prefetch", metavar="N", type=int, default=_DEFAULTS.prefetch, show_default=True,
              help="Most jobs claimed ahead while jobs are short.")
@click.option("--processes", metavar="N", type=click.IntRange(1), help="Run N processes, and replace one that dies.")
@click.option("--grace", metavar="SECONDS", type=float, default=_DEFAULTS.shutdown_grace.total_seconds(),
              show_default=True, help="How long stopping lets running jobs finish.")
@click.option("--lease", metavar="SECONDS", type=float, default=_DEFAULTS.liveness.lease.total_seconds(),
              show_default=True, help="Without a sign of life for this long it is dead to the others.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True, help="To stderr.")
@click.option("--lifeline", metavar="FD", type=int, hidden=True)
def command(**options: Unpack[WorkerOptions]) -> None:  # fmt: skip
    """Run the jobs of a Jobs object, until told to stop.

    MODULE:JOBS names it as Python would import it from the working directory: myapp.tasks:jobs is the object `jobs` of
    myapp/tasks.py. Where the module holds only one Jobs, its name is enough.

    SIGTERM and Ctrl-C drain: no new jobs, running ones may finish within the grace, then they are cancelled and handed
    back. A second signal does not wait. SIGUSR1 prints to stderr what it does at this moment: lease, claims,
    connections, tasks, threads.

    Exit code 0 after it has drained; 1 if a `def` job still ran and had to be left behind; 2 if MODULE:JOBS or an
    option is wrong; 3 if the database cannot be used; 75 if it was cut off from it and could not stop what ran.

    Example: piecework worker myapp.tasks:jobs --queues default,reports --processes 4
    """
    settings = _settings(options)
    logging.basicConfig(
        level=options["log_level"].upper(), format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    if options["processes"] is not None:
        raise click.exceptions.Exit(supervisor.run(_command_line(options), options["processes"]))
    # Until the worker has its handler.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    line = lifeline.grasp(options["lifeline"])
    jobs = find_jobs(options["target"], options["imports"])
    line.ready()
    # What is imported by now stays: full collections, which jobs bring about, need not walk it each time.
    gc.collect()
    gc.freeze()
    jobs.run_worker(settings)
    _leave()


def _settings(options: WorkerOptions) -> WorkerSettings:
    try:
        lease, grace = timedelta(seconds=options["lease"]), timedelta(seconds=options["grace"])
    except (OverflowError, ValueError) as error:
        raise ConfigurationError(f"--lease and --grace take seconds: {error}") from None
    return WorkerSettings(
        queues=[queue for part in options["queues"].split(",") if (queue := part.strip())],
        concurrency=options["concurrency"], threads=options["threads"], prefetch=options["prefetch"],
        # A grace of nothing is a wish that a timer can grant.
        shutdown_grace=grace or timedelta(microseconds=1),
        liveness=LivenessSettings.scaled(lease),
    )  # fmt: skip


def _command_line(options: WorkerOptions) -> list[str]:
    """Return the command of one worker process with the same options."""
    line = [sys.executable, "-P", "-m", "piecework"]
    line += ["--debug"] if click.get_current_context().find_root().params["debug"] else []
    line += ["worker", "--queues", options["queues"], "--log-level", options["log_level"]]
    line += ["--concurrency", str(options["concurrency"]), "--threads", str(options["threads"])]
    line += ["--prefetch", str(options["prefetch"]), "--grace", str(options["grace"]), "--lease", str(options["lease"])]
    line += [part for module in options["imports"] for part in ("--import", module)]
    return [*line, options["target"]]


def _leave() -> None:
    """End the process even though a job's function goes on in a thread: a second signal does not wait for it."""
    from piecework.engine.threads import names_of_running

    left = names_of_running()
    if left:
        log.warning("%d jobs are left behind in threads, they run again elsewhere: %s", len(left), ", ".join(left))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(_LEFT_BEHIND)
