"""Reading a whole record, as it was at one commit: by `ReadsWhole` where an engine has it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from datastore_lab.errors import NotFound
from datastore_lab.records import Maps, ReadsWhole, Record, default_dims
from datastore_lab.store.reading import read_record
from datastore_lab.testing.conformance.streams import SPEC, block
from datastore_lab.testing.conformance.suite import Suite, record
from datastore_lab.testing.equality import assert_same_array, assert_same_json

if TYPE_CHECKING:
    from datastore_lab.keys import Key

_WRITES = 40


class Whole(Suite):
    """A record read in one step is what a description and its arrays, read one by one, would give."""

    def test_a_whole_record_is_what_its_parts_are(self, engine: Any) -> None:
        dims = {"a": ("x", "y"), "x": ("x",)}
        arrays = {"a": np.arange(6.0).reshape(2, 3), "x": np.arange(2), "none": np.zeros((0, 2)), "0d": 5}
        text = np.array(["é", "", "long " * 50], "T")
        engine.write(("g", "k"), Record("kind", record(**arrays, text=text).arrays, {"n": [None, 1.5]}, dims))
        engine.write(("g", "k", "child"), record(v=[1]))
        engine.write(("bare",), Record("value", {}, {"x": 1}, {}))
        engine.update(("g",), {"title": "of the group"})
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 7))
        stream.flush()
        for key in [("g", "k"), ("g", "k", "child"), ("bare",), ("s",), ("g",), ()]:
            for found in _each_way(engine, key):
                _assert_is(found, engine, key)
        assert read_record(engine, ("g", "k")).dims["none"] == default_dims("none", 2)
        stream.close({})

    def test_a_whole_record_is_the_callers_own(self, engine: Any) -> None:
        engine.write(("k",), Record("array", {"a": np.arange(3)}, {"list": [1]}, {}))
        for _ in range(2):
            for found in _each_way(engine, ("k",)):
                assert found.arrays["a"].tolist() == [0, 1, 2]
                assert found.meta["list"] == [1]
                found.arrays["a"][:] = 9
                found.meta["list"].append(9)

    def test_a_whole_record_inside_a_transaction(self, engine: Any) -> None:
        engine.write(("k",), record(a=[1]))
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            engine.write(("k",), record(a=[2], b=[3]))
            for found in _each_way(engine, ("k",)):
                assert {name: array.tolist() for name, array in found.arrays.items()} == {"a": [2], "b": [3]}
            raise ZeroDivisionError
        for found in _each_way(engine, ("k",)):
            assert {name: array.tolist() for name, array in found.arrays.items()} == {"a": [1]}

    def test_no_whole_record_of_nothing(self, engine: Any) -> None:
        engine.write(("a",), record(v=[1]))
        for key in [("x",), ("a", "x")]:
            for read in _ways(engine):
                with pytest.raises(NotFound):
                    read(key)

    def test_a_whole_record_is_of_one_commit(self, engine: Any) -> None:
        def written(number: int) -> Record:
            full = np.full(2000, number)
            return Record("array", {"a": full, f"b{number % 2}": full}, {"n": number}, {})

        def replace() -> None:
            for number in range(1, _WRITES):
                engine.write(("k",), written(number))

        engine.write(("k",), written(0))
        thread = threading.Thread(target=replace)
        thread.start()
        try:
            while thread.is_alive():
                found = read_record(engine, ("k",))
                number = found.meta["n"]
                assert {int(value) for array in found.arrays.values() for value in np.unique(array)} == {
                    number
                }
                assert set(found.arrays) == {"a", f"b{number % 2}"}
        finally:
            thread.join(60)
        assert read_record(engine, ("k",)).meta["n"] == _WRITES - 1

    def test_what_may_be_mapped_is_what_is_read(self, engine: Any) -> None:
        values = np.random.default_rng(0).random((300, 40))
        arrays = {"a": values, "b": values.astype(">f4"), "c": np.arange(5), "d": np.zeros((0, 3))}
        engine.write(("k",), Record("array", arrays, {}, {}))
        if not issubclass(type(engine), Maps):
            return
        spans = engine.spans(("k",))
        assert "a" in spans
        for name, span in spans.items():
            size = span.offset + int(np.prod(span.shape)) * np.dtype(span.dtype).itemsize
            mapped = np.memmap(span.path, np.dtype(span.dtype), "r", span.offset, span.shape)
            assert mapped.tobytes() == arrays[name].tobytes()
            assert Path(span.path).stat().st_size >= size
        engine.write(("k",), Record("array", {"a": values + 1}, {}, {}))
        assert mapped.tobytes() == arrays[name].tobytes()
        with engine.transaction():
            engine.write(("k",), Record("array", {"a": values}, {}, {}))
            assert engine.spans(("k",)) == {}


def _ways(engine: Any) -> list[Callable[[Key], Record | None]]:
    ways: list[Callable[[Key], Record | None]] = [lambda key: read_record(engine, key)]
    return [*ways, engine.read_whole] if isinstance(engine, ReadsWhole) else ways


def _each_way(engine: Any, key: Key) -> list[Record]:
    return [found for read in _ways(engine) if (found := read(key)) is not None]


def _assert_is(found: Record, engine: Any, key: Key) -> None:
    stat = engine.stat(key)
    assert found.kind == stat.kind
    assert_same_json(found.meta, stat.meta)
    assert found.dims == {name: info.dims for name, info in stat.arrays.items()}
    assert found.arrays.keys() == stat.arrays.keys()
    for name, array in found.arrays.items():
        assert_same_array(array, engine.read(key, name))
