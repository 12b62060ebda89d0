"""What a store does once it is closed: nothing, and it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from datastore_lab.errors import EngineError
from datastore_lab.records import ReadsWhole
from datastore_lab.testing.conformance.streams import SPEC, block
from datastore_lab.testing.conformance.suite import Suite, record


class Closing(Suite):
    """Closing an engine, also where that comes too early."""

    def test_after_close_nothing_works(self, engine: Any) -> None:
        engine.write(("k",), record(a=[1]))
        stream = engine.append(("s",), SPEC)
        engine.close()
        engine.close()
        _assert_closed(engine)
        stream.extend(block(0, 1))
        for action in (stream.flush, lambda: stream.close({})):
            with pytest.raises(EngineError, match="closed"):
                action()

    def test_closing_inside_a_transaction_undoes_it(self, engine: Any) -> None:
        engine.write(("k",), record(a=[1]))
        with pytest.raises(EngineError, match="closed inside a transaction"), engine.transaction():  # noqa: PT012
            engine.write(("new",), record(a=[2]))
            engine.close()
            _assert_closed(engine)
        _assert_closed(engine)

    def test_closing_inside_a_transaction_hides_no_error(self, engine: Any) -> None:
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            engine.write(("new",), record(a=[2]))
            engine.close()
            raise ZeroDivisionError
        _assert_closed(engine)


def _assert_closed(engine: Any) -> None:
    actions: dict[str, Callable[[], Any]] = {
        "stat": lambda: engine.stat(("k",)),
        "read": lambda: engine.read(("k",), "a"),
        "keys": lambda: list(engine.keys()),
        "children": lambda: list(engine.children()),
        "write": lambda: engine.write(("k",), record(a=[1])),
        "update": lambda: engine.update(("k",), {"x": 1}),
        "move": lambda: engine.move(("k",), ("l",)),
        "delete": lambda: engine.delete(("k",)),
        "append": lambda: engine.append(("t",), SPEC),
        "transaction": lambda: engine.transaction().__enter__(),
        "revision": engine.revision,
        "fingerprint": lambda: engine.fingerprint(("k",)),
        "verify": lambda: list(engine.verify()),
        "repair": lambda: list(engine.repair()),
        "compact": engine.compact,
    }
    if isinstance(engine, ReadsWhole):
        actions["read_whole"] = lambda: engine.read_whole(("k",))
    for name, action in actions.items():
        with pytest.raises(EngineError, match="closed") as refused:  # noqa: PT012
            action()
            pytest.fail(f"{name} of a closed store was not refused")
        assert engine.url in str(refused.value), name
