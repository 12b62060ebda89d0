"""What `cached` is given: the age of results, and a function that has some."""

from __future__ import annotations

import datetime as dt
import inspect
from typing import Any

from datastore_lab import units
from datastore_lab.errors import NotStorable


def seconds_of(ttl: str | float | dt.timedelta | None) -> float | None:
    """Read the greatest age of a result.

    Raises
    ------
    ValueError
        If it is no duration, or not longer than nothing.

    Examples
    --------
    >>> seconds_of("7d"), seconds_of(dt.timedelta(hours=1)), seconds_of(None)
    (604800.0, 3600.0, None)
    """
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, dt.timedelta) else units.parse_duration(ttl)
    if not seconds > 0:
        raise ValueError(
            f"ttl={ttl!r}: a result can't be younger than that; give a time such as '7d', or None"
        )
    return seconds


def refuse_without_results(function: Any) -> None:
    """Refuse what has no results to keep."""
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(function, (staticmethod, classmethod)):
        raise NotStorable(
            f"put @cached below @{type(function).__name__} of {name}, next to the function", key=name
        )
    if isinstance(function, type):
        raise NotStorable(f"{name} is a class; cache a function that makes its objects", key=name)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise NotStorable(
            f"{name} is a generator, whose values are there only once; cache a function that returns them "
            "as a list or an array",
            key=name,
        )
