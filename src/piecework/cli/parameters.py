"""What arguments have to be besides: names as they can be stored, and numbers that are numbers."""

from __future__ import annotations

import math

import click

from piecework.base.errors import InvalidOptions
from piecework.work.placement import checked_name


def name(value: str) -> str:
    """Return the name of a queue, a job type or a key; end the command where it is none."""
    try:
        return checked_name(value, "it")
    except InvalidOptions as error:
        raise click.BadParameter(str(error)) from None


def name_or_nothing(value: str) -> str:
    """Return a name, or the empty text that stands for any."""
    return name(value) if value else ""


def a_number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Return a number; end the command where it is nan, which is neither below nor above the bounds of an option."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number", ctx, param)
    return value
