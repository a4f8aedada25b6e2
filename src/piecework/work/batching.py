"""How many jobs run together, and how many batches at once: checked where the job type is defined."""

from __future__ import annotations

from piecework.base.errors import RegistrationError
from piecework.base.texts import shown
from piecework.work.job_settings import CheckedSettings


def check_batching(
    settings: CheckedSettings, max_size: object, max_concurrent_batches: object, where: str
) -> tuple[int, int]:
    """Return the most jobs of a batch, and the most batches at once in a worker process.

    Raises:
        RegistrationError: they are no whole numbers of 1 or more, or single jobs were to be limited besides.
    """
    if settings.max_concurrent_per_process is not None:
        raise RegistrationError(f"{where}: the jobs run in batches, so max_concurrent_per_process has no meaning: "
                                "write max_concurrent_batches")
    size = _checked("the most jobs of a batch", max_size, where)
    return size, _checked("max_concurrent_batches", max_concurrent_batches, where)


def _checked(name: str, value: object, where: str) -> int:
    if type(value) is not int or value < 1:
        raise RegistrationError(f"{where}: {name} takes an int of 1 or more, not {shown(value)}")
    return value
