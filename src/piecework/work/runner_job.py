"""A class that runs jobs as a job type, in executable form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from types import FunctionType
from typing import Never, TypeAlias, cast, get_origin

from piecework.base.errors import InvalidOptions, RegistrationError
from piecework.base.serialization import qualified_name
from piecework.base.texts import shown
from piecework.work.batched_runner import BatchedJobRunner
from piecework.work.batching import check_batching
from piecework.work.config_job import ConfigJob
from piecework.work.current_job import CurrentJob
from piecework.work.job_settings import CheckedSettings, JobSettings, check_keys, check_settings
from piecework.work.placement import checked_name
from piecework.work.registry import RegisteredJob, RunBatch
from piecework.work.resident import only_reschedules
from piecework.work.runner import AnyRunner, EndingRunner, JobInitializer, JobRunner, ResidentJobRunner
from piecework.work.runner_types import RunnerTypes, read_types
from piecework.work.service import Service
from piecework.work.spawner import JobSpawner
from piecework.work.templates import MakeKey

AnySpawner: TypeAlias = JobSpawner[..., object]
_Run: TypeAlias = Callable[[CurrentJob], Coroutine[object, object, object]]

_FORMS = (JobRunner, JobInitializer, ResidentJobRunner, BatchedJobRunner)
_SETTINGS = (
    "aliases", "concurrency_limit", "fail_on", "inherits_state", "max_concurrent_per_process", "priority", "queue",
    "retry", "strict", "tags", "timeout",
)  # fmt: skip


def add(service: Service, runner: object) -> AnySpawner:
    """Make a runner or an initializer a job type of `service`, and return what spawns its jobs.

    Raises:
        RegistrationError: it is something else, its settings are wrong, or the job type is taken.
    """
    job = RunnerJob(_checked(runner), type(runner))
    service.registry.add(job)
    return JobSpawner(service, job, job.placement)


def spawner(service: Service, kind: object) -> AnySpawner:
    """Return what spawns the jobs of a runner class, without a runner.

    Raises:
        RegistrationError: it is no such class, or its settings are wrong.
    """
    cls = get_origin(kind) or kind
    if not isinstance(cls, type) or not any(issubclass(cls, form) for form in _FORMS):
        hint = "a job function is a spawner itself" if _form_of(cls) is None else f"give it {type(cls).__name__}"
        raise RegistrationError(f"jobs.spawner({cls!r}) takes a class that derives from JobRunner: {hint}")
    try:
        unmade = object.__new__(cast("type[object]", cls))
    except TypeError as error:
        raise RegistrationError(f"jobs.spawner({cls.__name__}): {error}") from None
    job = RunnerJob(cast("AnyRunner[Never]", unmade), kind)
    return JobSpawner(service, job, job.placement)


def _checked(runner: object) -> AnyRunner[Never]:
    if _form_of(runner) is not None:
        return cast("AnyRunner[Never]", runner)
    if isinstance(runner, type):
        raise RegistrationError(f"jobs.add({runner.__name__}) got the class: make one of it, jobs.add({runner.__name__}"
                                "(…)); for a spawner without a runner, write jobs.spawner(…)")
    if isinstance(runner, JobSpawner):
        raise RegistrationError(f"jobs.add({runner!r}) got a job that is registered already: spawn with it")
    if callable(runner):
        raise RegistrationError(f"jobs.add({runner!r}) got a function: write @jobs.job above it")
    raise RegistrationError(f"jobs.add({runner!r}) takes a JobRunner, a JobInitializer, a ResidentJobRunner or a "
                            "BatchedJobRunner")


def _form_of(runner: object) -> type | None:
    return next((form for form in _FORMS if isinstance(runner, form)), None)


class RunnerJob(ConfigJob):
    """A job type that is run by the method of a class.

    Args:
        runner: the runner or the initializer; or one whose `__init__` was not run, where jobs are only spawned.
        kind: its class, or that with its type arguments.

    Raises:
        RegistrationError: its job type, settings or types are missing or wrong.
    """

    __slots__ = ("_form", "_kind", "_run", "runner")

    def __init__(self, runner: AnyRunner[Never], kind: object) -> None:
        function = qualified_name(type(runner))
        where = f"the runner {function}"
        self.runner = runner
        self._kind = cast("object", getattr(runner, "__orig_class__", kind))
        form = _form_of(runner)
        assert form is not None, "checked before"
        self._form = form
        resident = form is ResidentJobRunner
        settings = check_settings(_settings(runner, resident=resident), where, resident=resident)
        self._run, place = _run_of(runner, form, where)
        super().__init__(_job_type(runner, where), function, place, is_async=True, settings=settings)
        if isinstance(runner, BatchedJobRunner):
            most = check_batching(settings, runner.max_batch_size, runner.max_concurrent_batches, where)
            self.batch_by(cast("RunBatch", self._run), *most)
        self._take_hooks(settings, where)
        self.read_if_complete()

    def _take_hooks(self, settings: CheckedSettings, where: str) -> None:
        key, concurrency_key = _hook(self.runner, "key"), _hook(self.runner, "concurrency_key")
        check_keys(settings, key is not None, concurrency_key is not None, where)
        if key is not None:
            self.make_key = partial(self._called, key, "key")
        if concurrency_key is not None:
            self.make_concurrency_key = partial(self._called, concurrency_key, "concurrency_key")

    def _called(self, hook: MakeKey, name: str, config: object) -> str | None:
        try:
            return self.checked_key(hook, config, name)
        except AttributeError as error:
            if error.obj is not self.runner:
                raise
            raise RegistrationError(
                f"{self.function}.{name}() uses self.{error.name}, which this runner does not have. If __init__ sets "
                "it: jobs.spawner() makes no runner, so make the key of the config alone, or spawn through jobs.add(…)"
            ) from error

    def read_types(self) -> RunnerTypes:
        """Return the types of config and result."""
        return read_types(self._kind, self._form, strict=self.strict)

    def replaces(self, other: RegisteredJob) -> bool:
        """Whether this is the other one, read again: a second runner of the very same class is another."""
        if isinstance(other, RunnerJob) and type(self.runner) is type(other.runner):
            return self.runner is other.runner
        return super().replaces(other)

    def renamed(self, job_type: str) -> str:
        """Return the code that would give it another job type, for messages."""
        return f"job_type = {job_type!r}"

    def prepare(self, job: CurrentJob) -> Callable[[], object]:
        """Decode the stored config, set `job.config`, and return a call of the method without arguments."""
        self.take_config(job)
        return partial(self._run, job)


def _job_type(runner: AnyRunner[Never], where: str) -> str:
    try:
        return checked_name(runner.job_type, f"{where}: job_type")
    except AttributeError:
        raise RegistrationError(f"{where} has no job_type: write job_type = '…' in the class, or set self.job_type in "
                                "__init__ where its instances are different job types") from None
    except InvalidOptions as error:
        raise RegistrationError(str(error)) from None


def _settings(runner: AnyRunner[Never], *, resident: bool) -> JobSettings:
    """Return the settings that differ from those which hold where nothing was said."""
    given = {name: cast("object", getattr(runner, name)) for name in _SETTINGS if hasattr(runner, name)}
    said = {name: value for name, value in given.items() if value != getattr(EndingRunner, name)}
    if resident and hasattr(runner, "key"):
        said["key"] = ""
    return cast("JobSettings", said)


def _hook(runner: AnyRunner[Never], name: str) -> MakeKey | None:
    """Return a method that makes keys, None if the class leaves it as it is."""
    hook: object = getattr(runner, name, None)
    inherited: object = getattr(EndingRunner, name)
    return None if hook is None or getattr(hook, "__func__", None) is inherited else cast("MakeKey", hook)


def _run_of(runner: AnyRunner[Never], form: type, where: str) -> tuple[_Run, str]:
    """Return what runs a job, and where its code is."""
    name = "init" if form is JobInitializer else "run_batch" if form is BatchedJobRunner else "run"
    method = cast("Callable[..., object]", getattr(runner, name))
    if form is JobInitializer:
        if inspect.iscoroutinefunction(method):
            raise RegistrationError(f"{where}: init is a plain method: what has to wait belongs into the runner's run")
        run: object = partial(_init_and_run, cast("Callable[[CurrentJob], object]", method))
    else:
        if not inspect.iscoroutinefunction(method):
            raise RegistrationError(f"{where}: {name} is written with async def; for code that blocks, write a "
                                    "@jobs.job function with def, or await asyncio.to_thread(…) inside")
        run = only_reschedules(method) if form is ResidentJobRunner else method
    code = cast("FunctionType", inspect.unwrap(getattr(method, "__func__", method))).__code__
    return cast("_Run", run), f"{qualified_name(type(runner))} ({code.co_filename}:{code.co_firstlineno})"


async def _init_and_run(init: Callable[[CurrentJob], object], job: CurrentJob) -> object:
    runner = init(job)
    if not isinstance(runner, JobRunner):
        raise TypeError(f"{qualified_name(init)} returned {shown(runner)}, which is no JobRunner")
    return await cast("JobRunner[object, object]", runner).run(job)
