"""Spawning: what is sent to the spawn function, and what its answer and its errors mean."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from uuid import UUID

import msgspec
import psycopg

from piecework.base.errors import InvalidConfig, JobAlreadyExists
from piecework.model.job import NewJob
from piecework.store.connection import LIMIT_ERRORS

_encode = msgspec.json.Encoder().encode
_decode_holders = msgspec.json.Decoder(list[tuple[int, UUID]]).decode
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def payload(jobs: Sequence[NewJob]) -> str:
    """Return the parameter of the spawn function."""
    return _encode(jobs).decode()


def holders(answer: object) -> dict[int, UUID]:
    """Return, by position, the live jobs that hold the keys of jobs which were therefore not created."""
    return {} if answer is None else dict(_decode_holders(str(answer)))


def exists_already(message: str) -> str:
    """Say what a unique violation means, from the database's detail of it."""
    found = _UUID.search(message)
    return (
        f"a job with this id exists already: {found.group() if found else message}. Nothing was spawned; look at it "
        "with jobs.handle(id), or leave the id out"
    )


@contextmanager
def refusals() -> Generator[None]:
    """Tell what of the jobs the database refuses."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise JobAlreadyExists(exists_already(error.diag.message_detail or str(error))) from None
    except (psycopg.DataError, psycopg.errors.NotNullViolation, *LIMIT_ERRORS) as error:
        raise InvalidConfig(
            f"PostgreSQL refuses a value of the job: {error.diag.message_primary}; "
            f"{error.diag.message_detail or error.sqlstate}. Nothing was spawned"
        ) from None
