"""The class form of a job type: runners with what they need as attributes, their config a type of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Generic, TypeAlias

from typing_extensions import TypeVar

from piecework.model.completion import Fail, Reschedule
from piecework.model.retry import RetrySettings
from piecework.work.current_job import CurrentJob

C = TypeVar("C", contravariant=True)
R = TypeVar("R", covariant=True, default=None)

JobCompletion: TypeAlias = R | Reschedule | Fail
"""What a runner with results of type `R` returns. Bare, of one without a result: `None | Reschedule | Fail`."""


class AnyRunner(ABC, Generic[C]):
    """What all classes that run jobs share: the settings of their job type, as attributes of the class or the instance.

    They are read once, when the runner is added.
    """

    job_type: str
    """The name of the job type. There is no default: write it in the class, or set it in `__init__` where the instances
    of one class are different job types."""
    queue: str = "default"
    """The queue its jobs wait in."""
    priority: int = 0
    """Lower runs first within a queue, -32768 to 32767."""
    retry: RetrySettings = RetrySettings()
    """How often a failing job is tried, and how long it waits in between."""
    timeout: timedelta | None = None
    """How long one run may take, from its start; None: as long as it likes. See `JobSettings.timeout`."""
    max_concurrent_per_process: int | None = None
    """At most so many of its jobs run at once in one worker process; None: no limit."""
    aliases: Sequence[str] = ()
    """Former names of the job type: jobs that were spawned under them run too."""
    tags: Sequence[str] = ()
    """Words to find its jobs by, at most 50 of at most 100 characters."""
    concurrency_limit: int = 1
    """How many jobs with the same concurrency key may run at once."""
    strict: bool = False
    """Whether a stored field that the config does not have fails the attempt; else it is ignored, with one WARNING."""

    def concurrency_key(self, config: C, /) -> str | None:
        """Return the key under which at most `concurrency_limit` jobs run at once, the oldest first; None for no key.

        Called at the spawn, with the config as it will be read. A text of 1 to 200 characters.
        """
        return None


class EndingRunner(AnyRunner[C]):
    """What all classes share whose jobs end."""

    fail_on: tuple[type[Exception], ...] = ()
    """Errors that are not worth another attempt: they end the job as `errored` at once."""
    inherits_state: bool = False
    """Whether a job starts with the execution state that the job before it with its key left behind."""

    def key(self, config: C, /) -> str | None:
        """Return the key of the job; None for no key. While a job of the type with that key is live, a spawn creates
        none, and its handle is that of the live one.

        Called at the spawn, with the config as it will be read. A text of 1 to 200 characters.
        """
        return None


class JobRunner(EndingRunner[C], Generic[C, R]):
    """Runs the jobs of one type: one instance, made by you, runs all of a process, many at once.

    `C` is the type of the config: a dataclass, a TypedDict, a msgspec Struct, a pydantic model, or plain values. It is
    stored as its JSON. `R` is the type of the result, `None` unless given.
    """

    @abstractmethod
    async def run(self, job: CurrentJob[C], /) -> JobCompletion[R]:
        """Do the job. What it returns is the result and completes the job, unless it is a `Reschedule` or a `Fail`."""


class JobInitializer(EndingRunner[C], Generic[C, R]):
    """Builds a runner for each attempt of each job, where one cannot run them all. The settings are the initializer's.

    `C` and `R` as those of `JobRunner`.
    """

    @abstractmethod
    def init(self, job: CurrentJob[C], /) -> JobRunner[C, R]:
        """Return a runner for this attempt. Called on the event loop: what has to wait belongs into its `run`.

        What this raises is what the attempt fails with.
        """


class ResidentJobRunner(AnyRunner[C]):
    """Runs the one job of its type, which never ends: it says each time when it runs again.

    A failed attempt is followed by another whatever `retry.n_attempts` says; its backoff counts.
    """

    @abstractmethod
    async def run(self, job: CurrentJob[C], /) -> Reschedule:
        """Do what is to be done now, and say when to run again."""
