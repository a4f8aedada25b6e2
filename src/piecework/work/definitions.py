"""How job types are defined: by functions, by classes, and what they share."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Concatenate, Never, ParamSpec, cast, overload

from typing_extensions import TypeVar, Unpack

from piecework.model.completion import Reschedule
from piecework.work import runner_job
from piecework.work.batch import BatchOutcomes, CurrentBatch
from piecework.work.batched_function import BatchedDecorator, register_batched
from piecework.work.batched_runner import MAX_BATCH_SIZE, MAX_CONCURRENT_BATCHES, BatchedJobRunner
from piecework.work.current_job import CurrentJob
from piecework.work.function import (
    Async,
    AsyncWithJob,
    JobDecorator,
    JobFunction,
    Plain,
    PlainWithJob,
    ResidentDecorator,
    register,
)
from piecework.work.job_settings import JobSettings
from piecework.work.resource import Resource, make_resource
from piecework.work.runner import JobInitializer, JobRunner, ResidentJobRunner
from piecework.work.service import Service
from piecework.work.spawner import JobSpawner

P = ParamSpec("P")
X = TypeVar("X", covariant=True)
V = TypeVar("V", covariant=True, default=Never)
C = TypeVar("C")
R = TypeVar("R")


class Definitions:
    """The part of `Jobs` that defines job types."""

    _service: Service

    @overload
    def job(
        self, fn: AsyncWithJob[P, X, V], /
    ) -> JobFunction[P, V, Concatenate[CurrentJob, P], Coroutine[object, Never, X]]: ...
    @overload
    def job(self, fn: Async[P, X, V], /) -> JobFunction[P, V, P, Coroutine[object, Never, X]]: ...
    @overload
    def job(self, fn: PlainWithJob[P, X, V], /) -> JobFunction[P, V, Concatenate[CurrentJob, P], X]: ...
    @overload
    def job(self, fn: Plain[P, X, V], /) -> JobFunction[P, V, P, X]: ...
    @overload
    def job(self, job_type: str = ..., /, **settings: Unpack[JobSettings]) -> JobDecorator: ...
    def job(self, fn: Callable[..., object] | str = "", /, **settings: object) -> object:
        """Make a function a job type: `@jobs.job`, `@jobs.job("job-type")` or `@jobs.job(queue="mail")`.

        The job type is the function's name unless another is given. The function's parameters, less a leading
        `job: CurrentJob`, are what `spawn` takes; they are stored as JSON by their names (so a dict
        comes back equal, but not in its order). What it returns is the
        result; it may return (or raise) `Reschedule` and `Fail` besides. An `async def` runs on the event loop of the
        worker, a `def` in a thread. It stays the function when it is called.

        Raises:
            RegistrationError: the function cannot be a job, a setting is wrong, or the job type is taken.
        """
        given = cast("JobSettings", settings)
        if not isinstance(fn, str):
            return register(self._service, fn, "", given, _scope(inspect.currentframe()))

        def decorate(decorated: object) -> object:
            return register(self._service, decorated, fn, given, _scope(inspect.currentframe()))

        return decorate

    @overload
    def resident(
        self, fn: Callable[Concatenate[CurrentJob, P], Coroutine[object, Never, Reschedule]], /
    ) -> JobFunction[P, Never, Concatenate[CurrentJob, P], Coroutine[object, Never, Reschedule]]: ...
    @overload
    def resident(
        self, fn: Callable[P, Coroutine[object, Never, Reschedule]], /
    ) -> JobFunction[P, Never, P, Coroutine[object, Never, Reschedule]]: ...
    @overload
    def resident(
        self, fn: Callable[Concatenate[CurrentJob, P], Reschedule], /
    ) -> JobFunction[P, Never, Concatenate[CurrentJob, P], Reschedule]: ...
    @overload
    def resident(self, fn: Callable[P, Reschedule], /) -> JobFunction[P, Never, P, Reschedule]: ...
    @overload
    def resident(self, job_type: str = ..., /, **settings: Unpack[JobSettings]) -> ResidentDecorator: ...
    def resident(self, fn: Callable[..., object] | str = "", /, **settings: object) -> object:
        """Make a function a resident job type: there is one job of it, which never ends. Used as `job` is.

        A spawn creates the job, or returns a handle of the one that lives already, with `created` False. The function
        returns `Reschedule`, each time; whatever else it does is a failed attempt, which is followed by another,
        whatever `retry.n_attempts` says. `key`, `fail_on` and `inherits_state` have no meaning, and are refused.

        Raises:
            RegistrationError: as `job`.
        """
        given = cast("JobSettings", settings)
        if not isinstance(fn, str):
            return register(self._service, fn, "", given, _scope(inspect.currentframe()), resident=True)

        def decorate(decorated: object) -> object:
            return register(self._service, decorated, fn, given, _scope(inspect.currentframe()), resident=True)

        return decorate

    @overload
    def batched(
        self, fn: Callable[[CurrentBatch[C]], Coroutine[object, Never, None]], /
    ) -> JobFunction[[C], None, [CurrentBatch[C]], Coroutine[object, Never, None]]: ...
    @overload
    def batched(
        self, fn: Callable[[CurrentBatch[C]], Coroutine[object, Never, BatchOutcomes[R]]], /
    ) -> JobFunction[[C], R, [CurrentBatch[C]], Coroutine[object, Never, BatchOutcomes[R]]]: ...
    @overload
    def batched(
        self,
        job_type: str = ...,
        /,
        *,
        max_size: int = ...,
        max_concurrent_batches: int = ...,
        **settings: Unpack[JobSettings],
    ) -> BatchedDecorator: ...
    def batched(
        self,
        fn: Callable[..., object] | str = "",
        /,
        *,
        max_size: int = MAX_BATCH_SIZE,
        max_concurrent_batches: int = MAX_CONCURRENT_BATCHES,
        **settings: object,
    ) -> object:
        """Make an `async def` function that takes a `CurrentBatch[Config]` a job type whose jobs run together.

        The jobs are spawned one by one, with one `Config` each. A batch is what one claim took of those that are due;
        it counts as one among the jobs that run at once, and `timeout` limits its run as a whole. The function returns
        `BatchOutcomes`, or `None` when all jobs are complete. What it raises fails the attempts of all of them; from
        the second attempt on a job is alone in its batch. `key` and `concurrency_key` are templates of the config's
        fields.

        Args:
            fn: the function, or the job type.
            max_size: at most so many jobs run together.
            max_concurrent_batches: at most so many batches run at once in one worker process.

        Raises:
            RegistrationError: as `job`.
        """

        register_it = partial(
            register_batched, self._service, settings=settings,
            max_size=max_size, max_concurrent_batches=max_concurrent_batches,
        )  # fmt: skip
        if not isinstance(fn, str):
            return register_it(fn, "", localns=_scope(inspect.currentframe()))

        def decorate(decorated: object) -> object:
            return register_it(decorated, fn, localns=_scope(inspect.currentframe()))

        return decorate

    @overload
    def add(self, runner: JobRunner[C, R] | JobInitializer[C, R], /) -> JobSpawner[[C], R]: ...
    @overload
    def add(self, runner: ResidentJobRunner[C], /) -> JobSpawner[[C], Never]: ...
    @overload
    def add(self, runner: BatchedJobRunner[C, R], /) -> JobSpawner[[C], R]: ...
    def add(self, runner: object, /) -> object:
        """Make a runner a job type, and return what spawns its jobs: `accounts = jobs.add(SyncAccount(bank))`.

        The job type and its settings are the attributes of the runner, read now. A worker that runs already takes its
        jobs from now on.

        Raises:
            RegistrationError: it is no instance of a runner class, its types or settings are wrong, or its job type is
                taken.
        """
        return runner_job.add(self._service, runner)

    @overload
    def spawner(self, runner: type[JobRunner[C, R]] | type[JobInitializer[C, R]], /) -> JobSpawner[[C], R]: ...
    @overload
    def spawner(self, runner: type[ResidentJobRunner[C]], /) -> JobSpawner[[C], Never]: ...
    @overload
    def spawner(self, runner: type[BatchedJobRunner[C, R]], /) -> JobSpawner[[C], R]: ...
    def spawner(self, runner: type[object], /) -> object:
        """Return what spawns the jobs of a runner class, in a process that does not run them and builds no runner.

        The settings are those of the class. Its `key` and `concurrency_key` are called on an instance whose `__init__`
        was not run: where one uses what `__init__` sets, the spawn raises `RegistrationError`.

        Raises:
            RegistrationError: it is no runner class, has no `job_type` of its own, or its types or settings are wrong.
        """
        return runner_job.spawner(self._service, runner)

    @overload
    def resource(self, opens: Callable[[], AsyncIterator[C]], /) -> Resource[C]: ...
    @overload
    def resource(self, opens: Callable[[], Iterator[C]], /) -> Resource[C]: ...
    def resource(self, opens: Callable[[], object], /) -> object:
        """Make a generator function, async or plain, a resource: what it yields, job functions get by `name.get()`.

        Each worker process has it once. It is opened before the worker's first claim, the first defined first, and
        closed in reverse when its last run has ended. An error while it opens stops the worker, with that error. A
        plain generator runs in threads of its own.

        Raises:
            RegistrationError: it is no generator function, or has parameters.
        """
        resource = make_resource(opens)
        self._service.resources.add(resource)
        return resource


def _scope(frame: FrameType | None) -> Mapping[str, object] | None:
    """Return the names of the scope that called the function of this frame; None if that is a module."""
    caller = None if frame is None else frame.f_back
    if caller is None or caller.f_locals is caller.f_globals:
        return None
    return dict(caller.f_locals)
