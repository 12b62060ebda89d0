"""What to do where a program writes to an array that the cache has handed out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from datastore_lab.cache import returned

HINT = (
    "{name!r} came from the cache, which gives arrays that can't be written to: "
    "give copy=True to the cached function it came from (--copy to %%cache), or work on {name}.copy()"
)


@contextlib.contextmanager
def hinting() -> Iterator[None]:
    """Add a note to the error of numpy that says that an array is read only, if the array is the cache's."""
    try:
        yield
    except ValueError as error:
        if "read-only" in str(error) and (name := _culprit(error.__traceback__)) is not None:
            error.add_note(HINT.format(name=name))
        raise


def _culprit(trace: TracebackType | None) -> str | None:
    """Name a variable that holds such an array, in the innermost function that has one."""
    found = None
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            if isinstance(value, np.ndarray) and returned.is_own(value):
                found = name
                break
        trace = trace.tb_next
    return found
