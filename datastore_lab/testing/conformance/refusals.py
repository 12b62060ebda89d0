"""What is refused says of which key and which store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from datastore_lab.errors import AlreadyExists, BadKey, LabError, NotFound
from datastore_lab.keys import show
from datastore_lab.testing.conformance.streams import SPEC
from datastore_lab.testing.conformance.suite import Suite, record

if TYPE_CHECKING:
    from datastore_lab.keys import Key

_NOWHERE = ("a", "no where")
_REFUSALS: dict[str, tuple[Key, type[LabError], Callable[[Any], Any]]] = {
    "stat": (_NOWHERE, NotFound, lambda engine: engine.stat(_NOWHERE)),
    "read": (_NOWHERE, NotFound, lambda engine: engine.read(_NOWHERE, "v")),
    "keys": (_NOWHERE, NotFound, lambda engine: list(engine.keys(_NOWHERE))),
    "children": (_NOWHERE, NotFound, lambda engine: list(engine.children(_NOWHERE))),
    "fingerprint": (_NOWHERE, NotFound, lambda engine: engine.fingerprint(_NOWHERE)),
    "verify": (_NOWHERE, NotFound, lambda engine: list(engine.verify(_NOWHERE))),
    "update": (_NOWHERE, NotFound, lambda engine: engine.update(_NOWHERE, {"n": 1})),
    "delete": (_NOWHERE, NotFound, lambda engine: engine.delete(_NOWHERE)),
    "move": (_NOWHERE, NotFound, lambda engine: engine.move(_NOWHERE, ("c",))),
    "no such array": (("a", "b"), NotFound, lambda engine: engine.read(("a", "b"), "w")),
    "moved onto another": (("a", "b"), AlreadyExists, lambda engine: _moved_onto(engine, ("a", "b"))),
    "moved into itself": (("a", "b", "c"), BadKey, lambda engine: engine.move(("a", "b"), ("a", "b", "c"))),
    "below an array": (("a", "v"), AlreadyExists, lambda engine: engine.write(("a", "v"), record(w=[1]))),
    "named like a child": (("a",), AlreadyExists, lambda engine: engine.write(("a",), record(b=[1]))),
    "a stream where a record is": (("a", "b"), AlreadyExists, lambda engine: engine.append(("a", "b"), SPEC)),
}
_AT_THE_ROOT: dict[str, Callable[[Any], Any]] = {
    "write": lambda engine: engine.write((), record(v=[1])),
    "append": lambda engine: engine.append((), SPEC),
    "move": lambda engine: engine.move((), ("a",)),
    "delete": lambda engine: engine.delete(()),
}


def _moved_onto(engine: Any, key: Key) -> None:
    engine.write(("other",), record(v=[1]))
    engine.move(("other",), key)


class Refusals(Suite):
    """The messages of what an engine does not do."""

    @pytest.mark.parametrize("what", _REFUSALS)
    def test_refusals_name_the_key_and_the_store(self, engine: Any, what: str) -> None:
        engine.write(("a",), record(v=[1]))
        engine.write(("a", "b"), record(v=[1]))
        key, kind, action = _REFUSALS[what]
        with pytest.raises(kind) as refused:
            action(engine)
        assert repr(show(key)) in str(refused.value)
        assert engine.url in str(refused.value)
        assert refused.value.key == key

    @pytest.mark.parametrize("what", _AT_THE_ROOT)
    def test_refusals_of_the_root_name_the_store(self, engine: Any, what: str) -> None:
        with pytest.raises(BadKey) as refused:
            _AT_THE_ROOT[what](engine)
        assert engine.url in str(refused.value)
