"""Kinds of arguments: names as they can be stored, and numbers that are numbers."""

from __future__ import annotations

import math

import click

from piecework.base.errors import InvalidOptions
from piecework.work.placement import checked_name


class _Name(click.ParamType):
    """The name of a queue, a job type or a key."""

    name = "text"

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self._may_be_empty = may_be_empty

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or end the command with the reason why it is none."""
        if value == "" and self._may_be_empty:
            return ""
        try:
            return checked_name(value, "it")
        except InvalidOptions as error:
            self.fail(str(error), param, ctx)


NAME = _Name()
NAME_OR_NOTHING = _Name(may_be_empty=True)


class Number(click.FloatRange):
    """A number between two others: not nan, which is neither below nor above them."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end the command with the reason why it is none."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number
