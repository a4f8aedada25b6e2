"""The class form: what its types and settings are, what it stores, and what is refused when it is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from piecework import (
    ConfigTooLarge,
    CurrentJob,
    InvalidConfig,
    InvalidOptions,
    JobCompletion,
    JobInitializer,
    JobRunner,
    Jobs,
    RegistrationError,
    Reschedule,
    ResidentJobRunner,
    RetrySettings,
)

T = TypeVar("T")
U = TypeVar("U")


@dataclass
class Sync:
    account: str
    full: bool = False


class Options(msgspec.Struct):
    depth: int = 1


class Row(TypedDict):
    sku: str


class Model(pydantic.BaseModel):
    name: str


class Pair(NamedTuple):
    left: int
    right: str


class SyncAccount(JobRunner[Sync]):
    job_type = "sync-account"

    def __init__(self, tenant: str = "") -> None:
        self.tenant = tenant
        if tenant:
            self.job_type = f"sync-account-{tenant}"

    async def run(self, job: CurrentJob[Sync]) -> JobCompletion:
        return None


class Keyed(SyncAccount):
    job_type = "keyed"
    inherits_state = True
    concurrency_limit = 3

    def key(self, config: Sync) -> str | None:
        return config.account or None

    def concurrency_key(self, config: Sync) -> str:
        assert type(config) is Sync
        return f"account:{self.tenant}:{config.account}"


class Base(JobRunner[list[T], U], Generic[U, T]):
    """A generic class in between."""

    async def run(self, job: CurrentJob[list[T]]) -> U:
        raise NotImplementedError


class Middle(Base[U, int], Generic[U]): ...


class Leaf(Middle[Options]):
    job_type = "leaf"


class Open(Base[str, T], Generic[T]):
    job_type = "open"


class Named(JobRunner["Later", "Later | Reschedule"]):
    job_type = "named"

    async def run(self, job: CurrentJob[Later]) -> Later:
        return job.config


class Later(msgspec.Struct):
    n: int


def of(config: Any, result: Any = None) -> JobRunner[Any, Any]:
    class Of(JobRunner[config, result]):  # type: ignore[valid-type]
        job_type = "of"

        async def run(self, job: CurrentJob[Any]) -> Any:
            return job.config

    return Of()


def read(jobs: Jobs, job_type: str, stored: bytes) -> object:
    job = jobs._service.registry.get(job_type)
    assert job is not None
    return job.decode_result(msgspec.Raw(stored))


@pytest.mark.parametrize(
    "config, value, stored",
    [
        (Sync, Sync("a"), b'{"account":"a","full":false}'),
        (Options, Options(), b'{"depth":1}'),
        (Row, Row(sku="tea"), b'{"sku":"tea"}'),
        (Model, Model(name="n"), b'{"name":"n"}'),
        (Pair, Pair(1, "r"), b'[1,"r"]'),
        (int, 7, b"7"),
        (list[Sync], [Sync("a")], b'[{"account":"a","full":false}]'),
        (dict[str, int], {"a": 1}, b'{"a":1}'),
        (Sync | None, Sync("a"), b'{"account":"a","full":false}'),
    ],
)
def test_a_config_is_stored_as_the_json_of_itself(config: Any, value: object, stored: bytes) -> None:
    spawner = Jobs().add(of(config))
    assert spawner.job_type == "of"
    assert bytes(spawner.spec(value).new.config) == stored


@pytest.mark.parametrize(
    "config, value, says",
    [
        (int, "7", "the config '7' does not fit int: Expected `int`, got `str`"),
        (Sync, Sync(3), "does not fit tests.work.test_runners.Sync: Expected `str`, got `int` - at `$.account`"),  # type: ignore[arg-type]
        (Model, {"nam": 1}, "does not fit"),
        (Sync, object(), "cannot be written as JSON"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_at_the_spawn(config: Any, value: Any, says: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Jobs().add(of(config)).spec(value)
    assert "job type of" in str(refused.value)
    assert says.replace("tests.work.", "") in str(refused.value).replace(f"{__name__}.", "test_runners.")


def test_a_config_is_one_value() -> None:
    spawner: Any = Jobs().add(SyncAccount())
    for arguments in ((), (Sync("a"), Sync("b"))):
        with pytest.raises(InvalidConfig, match=r"a job of type sync-account takes its config, one .*Sync, and got"):
            spawner.spec(*arguments)
    with pytest.raises(InvalidConfig, match="1 arguments and 1 keywords; options go through options"):
        spawner.spec(Sync("a"), priority=3)


def test_a_config_over_the_limit_is_refused() -> None:
    with pytest.raises(ConfigTooLarge, match="takes 202 bytes, the limit is 100"):
        Jobs(max_config_size=100).add(of(str)).spec("x" * 200)


def test_types_are_read_through_generic_classes_in_between() -> None:
    jobs = Jobs()
    assert bytes(jobs.add(Leaf()).spec([1]).new.config) == b"[1]"
    with pytest.raises(InvalidConfig, match=r"does not fit list\[int\]"):
        jobs.add(Leaf2()).spec(["a"])  # type: ignore[list-item]
    assert read(jobs, "leaf", b'{"depth":3}') == Options(3)
    assert bytes(jobs.add(Open[str]()).spec(["a"]).new.config) == b'["a"]'
    assert read(jobs, "open", b'"x"') == "x"


class Leaf2(Middle[int]):
    job_type = "leaf-2"


def test_a_result_is_of_the_declared_type_less_rescheduling_and_failing() -> None:
    jobs = Jobs()
    jobs.add(Named())
    assert read(jobs, "named", b'{"n":1}') == Later(1)
    jobs.add(of(int, int))
    assert read(jobs, "of", b"3") == 3
    with pytest.raises(msgspec.ValidationError):
        read(jobs, "of", b'"3"')
    jobs.add(SyncAccount())
    assert read(jobs, "sync-account", b"null") is None
    with pytest.raises(msgspec.ValidationError):
        read(jobs, "sync-account", b"3")


def test_types_that_are_defined_further_down_are_found() -> None:
    assert bytes(Jobs().add(Named()).spec(Later(4)).new.config) == b'{"n":4}'


def test_a_type_that_never_comes_is_an_error_of_the_first_use_and_of_the_worker() -> None:
    class Missing(JobRunner["Nowhere"]):  # type: ignore[name-defined]
        job_type = "missing"

        async def run(self, job: CurrentJob[Any]) -> None: ...

    jobs = Jobs()
    spawner = jobs.add(Missing())
    for use in (lambda: spawner.spec(1), jobs._service.registry.resolve):
        with pytest.raises(RegistrationError, match=r"job type missing: the config or the result of .* names Nowhere"):
            use()


def test_settings_are_attributes_of_the_class_or_of_the_instance() -> None:
    class Settled(SyncAccount):
        job_type = "settled"
        retry = RetrySettings(n_attempts=2)
        fail_on = (KeyError,)
        max_concurrent_per_process = 3
        aliases = ["old"]
        queue = "accounts"
        priority = 5
        tags = ("a",)
        strict = True

        def __init__(self) -> None:
            super().__init__()
            self.timeout = timedelta(minutes=1)

    jobs = Jobs()
    new = jobs.add(Settled()).spec(Sync("a")).new
    assert (new.queue, new.priority, tuple(new.tags)) == ("accounts", 5, ("a",))
    assert (new.key, new.concurrency_key, new.concurrency_limit) == (None, None, None)
    job = jobs._service.registry.get("old")
    assert job is not None
    assert (job.job_type, job.is_async, job.resident, job.strict) == ("settled", True, False, True)
    assert (job.retry, job.fail_on, job.max_concurrent_per_process) == (Settled.retry, (KeyError,), 3)
    assert job.timeout == timedelta(minutes=1)


def test_the_job_type_may_come_from_the_instance() -> None:
    jobs = Jobs()
    spawners = [jobs.add(SyncAccount(tenant)) for tenant in ("a", "b", "")]
    assert [each.job_type for each in spawners] == ["sync-account-a", "sync-account-b", "sync-account"]
    assert jobs._service.registry.job_types == ("sync-account-a", "sync-account-b", "sync-account")


def test_keys_come_from_the_hooks_and_options_replace_them() -> None:
    spawner = Jobs().add(Keyed("t"))
    new = spawner.spec(Sync("a")).new
    assert (new.key, new.concurrency_key, new.concurrency_limit) == ("a", "account:t:a", 3)
    assert spawner.spec(Sync("")).new.key is None
    new = spawner.options(key="k", concurrency_key="c", concurrency_limit=1).spec(Sync("a")).new
    assert (new.key, new.concurrency_key, new.concurrency_limit) == ("k", "c", 1)
    with pytest.raises(InvalidOptions, match="job type sync-account-t: the key made of its arguments takes 1 to 200"):
        spawner.spec(Sync("x" * 201))


def test_an_error_of_a_hook_is_that_of_the_spawn() -> None:
    class Fails(SyncAccount):
        job_type = "fails"

        def key(self, config: Sync) -> str:
            return {}[config.account]

    class Numbers(SyncAccount):
        job_type = "numbers"

        def key(self, config: Sync) -> str:
            return 3  # type: ignore[return-value]

    with pytest.raises(KeyError):
        Jobs().add(Fails()).spec(Sync("a"))
    with pytest.raises(InvalidOptions, match="takes a text, not 3"):
        Jobs().add(Numbers()).spec(Sync("a"))


def test_a_spawner_needs_no_runner() -> None:
    class NeedsBank(Keyed):
        job_type = "needs-bank"

        def __init__(self, bank: object) -> None:
            super().__init__(tenant="never set")
            raise AssertionError("no runner is built")

        def concurrency_key(self, config: Sync) -> str:
            return f"account:{config.account}"

    class Builds(JobInitializer[Sync, int]):
        job_type = "builds"

        def init(self, job: CurrentJob[Sync]) -> JobRunner[Sync, int]:
            raise NotImplementedError

    jobs = Jobs()
    new = jobs.spawner(NeedsBank).spec(Sync("a")).new
    assert (new.job_type, new.key, new.concurrency_key, new.concurrency_limit) == ("needs-bank", "a", "account:a", 3)
    assert jobs.spawner(Builds).spec(Sync("a")).new.job_type == "builds"
    assert bytes(jobs.spawner(Open[int]).spec([1]).new.config) == b"[1]"
    assert jobs._service.registry.job_types == ()


def test_a_spawner_without_a_runner_says_that_a_key_needs_one() -> None:
    spawner = Jobs().spawner(Keyed)
    with pytest.raises(RegistrationError) as refused:
        spawner.spec(Sync("a"))
    assert "Keyed.concurrency_key() uses self.tenant, which this runner does not have" in str(refused.value)
    assert "spawn through jobs.add(…)" in str(refused.value)
    assert spawner.options(concurrency_key="c").spec(Sync("a")).new.key == "a"


# Each of these is refused, and the message says what to write.


class NoType(JobRunner[Sync]):
    async def run(self, job: CurrentJob[Sync]) -> None: ...


class EmptyType(NoType):
    job_type = ""


class NumberType(NoType):
    job_type = 3  # type: ignore[assignment]


class NoConfig(JobRunner):  # type: ignore[type-arg]
    job_type = "no-config"

    async def run(self, job: CurrentJob[Any]) -> None: ...


class OpenConfig(JobRunner[T]):
    job_type = "open-config"

    async def run(self, job: CurrentJob[T]) -> None: ...


class Unstorable(JobRunner[Callable[[], None]]):
    job_type = "unstorable"

    async def run(self, job: CurrentJob[Callable[[], None]]) -> None: ...


class UnstorableResult(JobRunner[int, Jobs]):
    job_type = "unstorable"

    async def run(self, job: CurrentJob[int]) -> Jobs:
        raise NotImplementedError


class PlainRun(JobRunner[Sync]):
    job_type = "plain-run"

    def run(self, job: CurrentJob[Sync]) -> None: ...  # type: ignore[override]


class AsyncInit(JobInitializer[Sync]):
    job_type = "async-init"

    async def init(self, job: CurrentJob[Sync]) -> SyncAccount:  # type: ignore[override]
        return SyncAccount()


class WrongQueue(SyncAccount):
    queue = ""


class WrongRetry(SyncAccount):
    retry = 5  # type: ignore[assignment]


class WrongTimeout(SyncAccount):
    timeout = 30  # type: ignore[assignment]


class InheritsNothing(SyncAccount):
    inherits_state = True


class LimitsNothing(SyncAccount):
    concurrency_limit = 5


class StrictModel(JobRunner[Model]):
    job_type = "strict-model"
    strict = True

    async def run(self, job: CurrentJob[Model]) -> None: ...


class Sweep(ResidentJobRunner[Sync]):
    job_type = "sweep"
    retry = RetrySettings(n_attempts=1, n_warn_attempts=7)

    async def run(self, job: CurrentJob[Sync]) -> Reschedule:
        return Reschedule.now()


class SweepFails(Sweep):
    fail_on = (ValueError,)


class SweepKeyed(Sweep):
    def key(self, config: Sync) -> str:
        return "k"


async def function(n: int) -> None: ...


@pytest.mark.parametrize(
    "runner, says",
    [
        (SyncAccount, "jobs.add(SyncAccount) got the class: make one of it, jobs.add(SyncAccount(…))"),
        (Jobs().job(function), "got a job that is registered already"),
        (function, "got a function: write @jobs.job above it"),
        ("sync", "takes a JobRunner, a JobInitializer, a ResidentJobRunner or a BatchedJobRunner"),
        (NoType(), "NoType has no job_type: write job_type = '…' in the class, or set self.job_type in __init__"),
        (EmptyType(), "job_type takes 1 to 200 characters"),
        (NumberType(), "job_type takes a text, not 3"),
        (NoConfig(), "NoConfig: which config do its jobs have? Write class NoConfig(JobRunner[Config])"),
        (OpenConfig(), "OpenConfig: which config do its jobs have?"),
        (Unstorable(), "Unstorable: the config"),
        (UnstorableResult(), "the result is or holds piecework.jobs.Jobs, which has no JSON form"),
        (PlainRun(), "PlainRun: run is written with async def"),
        (AsyncInit(), "AsyncInit: init is a plain method"),
        (WrongQueue(), "queue= takes 1 to 200 characters"),
        (WrongRetry(), "retry= takes RetrySettings, not 5"),
        (WrongTimeout(), "timeout= takes a timedelta, not 30"),
        (InheritsNothing(), "inherits_state=True needs a key"),
        (LimitsNothing(), "concurrency_limit= needs a concurrency_key"),
        (StrictModel(), "write model_config = ConfigDict(extra='forbid')"),
        (SweepFails(), "fail_on= has no meaning, since a resident job never ends"),
        (SweepKeyed(), "key= has no meaning, since a resident job never ends"),
    ],
)
def test_what_cannot_be_added_is_refused(runner: Any, says: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Jobs().add(runner)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "runner, says",
    [
        (SyncAccount(), "takes a class that derives from JobRunner: give it SyncAccount"),
        (Jobs().job(function), "a job function is a spawner itself"),
        (int, "takes a class that derives from JobRunner"),
        (JobRunner, "abstract"),
        (NoType, "has no job_type"),
    ],
)
def test_what_has_no_spawner_is_refused(runner: Any, says: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Jobs().spawner(runner)
    assert says in str(refused.value)


def test_a_second_runner_of_one_job_type_is_an_error_that_names_both() -> None:
    jobs = Jobs()
    first = SyncAccount()
    jobs.add(first)
    jobs.add(first)
    with pytest.raises(RegistrationError) as refused:
        jobs.add(SyncAccount())
    assert "'sync-account' is registered twice" in str(refused.value)
    assert str(refused.value).count(f"SyncAccount ({__file__}:") == 2
    assert "job_type = 'sync-account-2'" in str(refused.value)
    jobs.job(function)
    with pytest.raises(RegistrationError, match="registered twice"):
        jobs.add(SyncAccount2())


class SyncAccount2(SyncAccount):
    job_type = "function"


def test_a_reloaded_class_replaces_itself() -> None:
    def reload() -> JobRunner[Any]:
        class Again(SyncAccount):
            job_type = "again"

        return Again()

    jobs = Jobs()
    jobs.add(reload())
    jobs.add(reload())
    assert jobs._service.registry.job_types == ("again",)


def test_a_resident_runner_has_one_key_and_attempts_without_end() -> None:
    jobs = Jobs()
    spawner = jobs.add(Sweep())
    assert spawner.spec(Sync("a")).new.key == spawner.spec(Sync("b")).new.key == "resident"
    job = jobs._service.registry.get("sweep")
    assert job is not None
    assert job.resident
    assert job.retry == RetrySettings(n_attempts=None, n_warn_attempts=7)
    with pytest.raises(InvalidOptions, match="there is one job of the resident type sweep in any case"):
        spawner.options(key="k")
