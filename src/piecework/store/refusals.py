"""What an error of a driver of the caller's means in piecework's terms, whichever driver it is."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

from piecework.base.errors import (
    DatabaseError,
    DatabaseUnreachable,
    InvalidConfig,
    JobAlreadyExists,
    MigrationsNeeded,
    PermissionDenied,
    PieceworkError,
    TransactionError,
)
from piecework.store.drivers import aborted
from piecework.store.spawning import exists_already

_DRIVERS = ("psycopg", "asyncpg", "psycopg2", "pg8000", "sqlalchemy", "django")
_ROLL_BACK = "Roll your transaction back, or back to a savepoint"


@contextmanager
def translated() -> Generator[None]:
    """Raise what a driver raises in this block as an error of piecework's, with the driver's as its cause."""
    try:
        yield
    except PieceworkError:
        raise
    except Exception as error:
        if not any(cls.__module__.split(".")[0] in _DRIVERS for cls in type(error).__mro__):
            raise
        raise _meaning(error) from error


def _meaning(error: Exception) -> PieceworkError:
    """Say in piecework's terms what a driver's error means."""
    source, state = _with_state(error)
    if source is None:
        return _without_state(error)
    message, detail = _said(source)
    if state == "23505":
        return JobAlreadyExists(f"{exists_already(detail or message)}. {_ROLL_BACK}")
    if state == "23502" or state.startswith(("22", "54")):
        return InvalidConfig(f"PostgreSQL refuses a value of the job: {message}; {detail or state}. {_ROLL_BACK}")
    if state.startswith(("08", "57P")):
        return DatabaseUnreachable(f"the connection is lost: {message} ({state}). Begin anew on another connection")
    return _by_state(state, message)


def _by_state(state: str, message: str) -> PieceworkError:
    match state:
        case "42P01" | "42883" | "3F000":
            return MigrationsNeeded(
                f"the schema is not there or not complete in the database of the connection: {message}. Run "
                "`piecework migrate` on it, unless the connection is to another database than the jobs are in"
            )
        case "42501":
            return PermissionDenied(f"the database role of the connection lacks a privilege: {message}. Grant it "
                                    "USAGE on the schema, and EXECUTE on its functions with what they write to")
        case "25P02":
            return aborted()
        case "25006":
            return TransactionError(f"the transaction of the connection is read-only: {message}. Use one that writes")
        case "40P01":
            return TransactionError(
                f"deadlock: {message}. Another transaction holds a key that this one waits for, and waits for one of "
                "this: roll back and try again. It does not happen where keys are taken in one order, as spawn_all does"
            )
        case "55P03":
            return TransactionError(f"an open transaction holds what this one needs, a key or a job: {message}. Roll "
                                    "back and try again; look for a transaction that stays open for long")
        case "40001":
            return TransactionError("the isolation level of the transaction does not bear a concurrent change: "
                                    f"{message}. Roll back and try again, or use READ COMMITTED")
        case "0A000":
            return TransactionError(f"{message}. Roll back")
        case "57014":
            return TransactionError(f"the statement was cancelled: {message}. Roll back")
        case _:
            return DatabaseError(f"PostgreSQL refuses: {message} ({state}). {_ROLL_BACK}")


def _without_state(error: Exception) -> PieceworkError:
    """The driver itself refuses, or has lost the connection."""
    # Without SQLAlchemy's links to its pages.
    message = _line(str(error).split("(Background on this error")[0])
    chain = _chain(error)
    lost = any(cls.__name__ == "OperationalError" for each in chain for cls in type(each).__mro__)
    if lost or any(isinstance(each, OSError) for each in chain):
        return DatabaseUnreachable(f"the connection is lost: {message}. Begin anew on another connection")
    return TransactionError(f"the connection refuses the statement: {message}")


def state_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error, or of what it wraps; an empty text where there is none."""
    return _with_state(error)[1]


def _with_state(error: BaseException) -> tuple[BaseException | None, str]:
    """Return the innermost error that has an SQLSTATE."""
    for each in reversed(_chain(error)):
        if state := _state(each):
            return each, state
    return None, ""


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it wraps: SQLAlchemy's and Django's wrap the driver's, pg8000's the socket's."""
    chain = [error]
    while len(chain) < 8:
        wrapped: object = getattr(chain[-1], "orig", None) or chain[-1].__cause__
        if not isinstance(wrapped, BaseException):
            break
        chain.append(wrapped)
    return chain


def _fields(error: BaseException) -> dict[str, object]:
    """pg8000's errors have the fields of the server's message as their one argument."""
    first: object = error.args[0] if error.args else None
    return cast("dict[str, object]", first) if isinstance(first, dict) else {}


def _state(error: BaseException) -> str:
    state: object = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or _fields(error).get("C")
    return state if isinstance(state, str) else ""


def _said(error: BaseException) -> tuple[str, str]:
    """Return the server's message and its detail."""
    diag: object = getattr(error, "diag", None)
    fields = _fields(error)
    message: object = getattr(diag, "message_primary", None) or fields.get("M") or str(error)
    detail: object = getattr(diag, "message_detail", None) or fields.get("D") or getattr(error, "detail", None)
    return _line(message), _line(detail or "")


def _line(text: object) -> str:
    return " ".join(str(text).split()).rstrip(".")
