"""How the end of a run is judged: which settlement follows from what a function returned or raised."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import msgspec

from piecework.base.errors import NotCommitted
from piecework.base.texts import shown
from piecework.engine.held import Held
from piecework.engine.stopping import late
from piecework.model.completion import Fail, Reschedule
from piecework.model.settlement import Settlement, cancelled, completed, failed, failed_by_reason, rescheduled
from piecework.work.current_job import sent_by


def tamed(value: object, error: BaseException | None) -> tuple[object, BaseException | None]:
    """Return what a run returned or raised, so that it can be asked for its class; of what cannot be, why not."""
    try:
        isinstance(value, Fail)
        isinstance(error, Fail)
    except BaseException as unlike:  # `__class__` may be a property
        return None, unlike
    return value, error


def judge_end(held: Held, value: object, error: BaseException | None, now: float) -> Settlement:
    """Return the settlement of a claim whose run has ended, with respect to why it was stopped. Never raises, whatever
    the classes of `value` and `error` do."""
    try:
        settlement = _judged(held, value, error, now)
    except Exception as unlike:
        settlement = judge_error(held, unlike, now)
    if held.stop == "cancel" and settlement.move != "complete":
        return cancelled(held.job, held.started)
    return settlement


def _judged(held: Held, value: object, error: BaseException | None, now: float) -> Settlement:
    if held.stop == "timeout" and not isinstance(value, Fail) and not isinstance(error, Fail):
        return judge_error(held, late(held, error), now)
    return _judge_value(held, value, now) if error is None else judge_error(held, error, now)


def judge_error(held: Held, error: BaseException, now: float, *, ran: bool = True) -> Settlement:
    """Return the settlement of a failed attempt."""
    assert held.started is not None
    lasted = timedelta(seconds=now - held.started)
    registered = held.registered
    started = held.started if ran else None
    try:
        return failed(held.job, registered.retry, registered.fail_on, started, lasted, error, random.random())
    except Exception as unlike:  # the class of the error has a mind of its own: it will not be asked what it is
        return failed(held.job, registered.retry, (), started, lasted, unlike, random.random())


def verified(held: Held, settlement: Settlement, value: object, error: BaseException | None) -> Settlement:
    """Return a settlement of a run that may have ended its job in a transaction. It is written in any case: the answer
    tells whether that transaction was committed, is open still, or never will be."""
    sent = None if held.current is None else sent_by(held.current)
    if sent is None:
        return settlement
    surplus = ""
    if error is not None and not (held.stop is not None and isinstance(error, asyncio.CancelledError)):
        surplus = f"raised {shown(error)}"
    elif value is not None and not (isinstance(value, Reschedule) and sent.move == "reschedule"):
        surplus = f"returned {shown(value)}"
    return msgspec.structs.replace(settlement, sent=sent, surplus=surplus)


def _judge_value(held: Held, value: object, now: float) -> Settlement:
    assert held.started is not None
    if isinstance(value, Reschedule):
        return rescheduled(held.job, held.started, value)
    if isinstance(value, Fail):
        return failed_by_reason(held.job, held.started, value)
    if held.current is not None and sent_by(held.current) is not None:
        return judge_error(held, NotCommitted("the transaction in which the run completed its job was never committed: "
                                              "commit it before the function returns"), now)
    try:
        return completed(held.job, held.started, held.registered.encode_result(value))
    except BaseException as error:  # a value's own code may raise anything, also what would end the event loop
        return judge_error(held, error, now)
