"""How the end of a run is judged: which settlement follows from what a function returned or raised."""

from __future__ import annotations

import random
from datetime import timedelta

from piecework.engine.held import Held
from piecework.engine.stopping import late
from piecework.model.completion import Fail, Reschedule
from piecework.model.settlement import Settlement, cancelled, completed, failed, failed_by_reason, rescheduled


def judge_end(held: Held, value: object, error: BaseException | None, now: float) -> Settlement:
    """Return the settlement of a claim whose run has ended, with respect to why it was stopped."""
    if held.stop == "timeout" and not isinstance(value, Fail) and not isinstance(error, Fail):
        return judge_error(held, late(held, error), now)
    settlement = _judge_value(held, value, now) if error is None else judge_error(held, error, now)
    if held.stop == "cancel" and settlement.move != "complete":
        return cancelled(held.job, held.started)
    return settlement


def judge_error(held: Held, error: BaseException, now: float, *, ran: bool = True) -> Settlement:
    """Return the settlement of a failed attempt."""
    assert held.started is not None
    lasted = timedelta(seconds=now - held.started)
    registered = held.registered
    started = held.started if ran else None
    return failed(held.job, registered.retry, registered.fail_on, started, lasted, error, random.random())


def _judge_value(held: Held, value: object, now: float) -> Settlement:
    assert held.started is not None
    if isinstance(value, Reschedule):
        return rescheduled(held.job, held.started, value)
    if isinstance(value, Fail):
        return failed_by_reason(held.job, held.started, value)
    try:
        return completed(held.job, held.started, held.registered.encode_result(value))
    except Exception as error:
        return judge_error(held, error, now)
