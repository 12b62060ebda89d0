"""Ctrl-C at any moment: what was going on is made whole or not at all, and the store goes on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from datastore_lab.testing.conformance.suite import Suite, content, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from datastore_lab.records import Record

_POINTS = 10


class Interrupts(Suite):
    """Interruptions while an engine is at work."""

    @pytest.mark.parametrize("what", ["write", "replace", "transaction", "read"])
    def test_an_interrupted_call_is_made_whole_or_not_at_all(self, engine: Any, what: str) -> None:
        engine.write(("old",), _made(0))
        action = _actions(engine)[what]
        lines = _lines(action)
        for point in range(0, lines, max(1, lines // _POINTS)):
            engine.write(("old",), _made(0))
            if ("new",) in set(engine.keys()):
                engine.delete(("new",))
            with suppress(KeyboardInterrupt), _interrupted(point):
                action()
            found = {key: int(arrays["v"][0]) for key, (_, arrays) in content(engine).items()}
            allowed: list[dict[tuple[str, ...], int]] = [{("old",): 0}, *_AFTER[what]]
            assert found in allowed, point
            assert list(engine.verify()) == [], point


_AFTER: dict[str, list[dict[tuple[str, ...], int]]] = {
    "write": [{("old",): 0, ("new",): 1}],
    "replace": [{("old",): 1}],
    "transaction": [{("old",): 1, ("new",): 1}],
    "read": [],
}


def _made(number: int) -> Record:
    return record(v=np.full(3000, number))


def _actions(engine: Any) -> dict[str, Callable[[], Any]]:
    def several() -> None:
        with engine.transaction():
            engine.write(("old",), _made(1))
            engine.write(("new",), _made(1))

    return {
        "write": lambda: engine.write(("new",), _made(1)),
        "replace": lambda: engine.write(("old",), _made(1)),
        "transaction": several,
        "read": lambda: engine.read(("old",), "v"),
    }


@contextmanager
def _traced(each: Callable[[], None]) -> Iterator[None]:
    """Call something before each line of this package that is run."""

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        if "datastore_lab" not in frame.f_code.co_filename or "testing" in frame.f_code.co_filename:
            return None
        if event == "line":
            each()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _lines(action: Callable[[], Any]) -> int:
    """Count the lines that are run."""
    count = [0]

    def tell() -> None:
        count[0] += 1

    with _traced(tell):
        action()
    return count[0]


@contextmanager
def _interrupted(point: int) -> Iterator[None]:
    """Press Ctrl-C before a line that is given by its number."""
    count = [0]

    def press() -> None:
        count[0] += 1
        if count[0] == point + 1:
            signal.raise_signal(signal.SIGINT)

    with _traced(press):
        yield
