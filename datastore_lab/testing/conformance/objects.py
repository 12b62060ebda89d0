"""What holds for object stores: records are read, written and deleted one at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, NotFound, ReadOnly
from datastore_lab.records import Record
from datastore_lab.testing import samples
from datastore_lab.testing.conformance.basics import Basics
from datastore_lab.testing.conformance.changes import Changes
from datastore_lab.testing.conformance.streams import SPEC
from datastore_lab.testing.conformance.suite import (
    assert_holds,
    assert_record,
    assert_unchanged,
    content,
    each,
    every_dtype,
    record,
)
from datastore_lab.testing.equality import assert_same_json


class ObjectStoreConformance(Basics):
    """An engine over single objects, which can be changed each by itself but not several at once."""

    test_order = Changes.test_keys_come_in_a_stable_order_parents_first
    test_children = Changes.test_children_come_one_by_one
    test_replacing = Changes.test_a_record_is_replaced_whole_and_children_stay
    test_group_to_record = Changes.test_a_group_becomes_a_record
    test_update = Changes.test_update_merges
    test_attributes_of_groups = Changes.test_groups_and_the_root_have_attributes_too
    test_updated_attributes_of_arrays = Changes.test_update_of_the_attributes_of_arrays
    test_refused_updates = Changes.test_refused_updates_leave_no_trace
    test_root = Changes.test_the_root_is_no_record
    test_delete = Changes.test_delete_takes_everything_below
    test_again_and_again = Changes.test_a_key_takes_its_place_again_and_again
    test_empty_transaction = Changes.test_an_empty_transaction
    test_compact = Changes.test_compact_keeps_everything

    @pytest.mark.slow
    @every_dtype
    def test_every_type_in_every_shape(self, engine: Any, dtype: np.dtype[Any]) -> None:
        super().test_every_type_in_every_shape(engine, dtype)

    @pytest.mark.slow
    @every_dtype
    def test_parts_of_every_type(self, engine: Any, dtype: np.dtype[Any]) -> None:
        super().test_parts_of_every_type(engine, dtype)

    def test_all_types_in_one_record(self, engine: Any) -> None:
        arrays = {f"a{number}": samples.array(t, (2, 3), number) for number, t in enumerate(samples.DTYPES)}
        made = Record("array", arrays, {}, {})
        engine.write(("k",), made)
        assert_record(engine, ("k",), made)

    def test_all_odd_keys_side_by_side(self, engine: Any) -> None:
        parts = samples.PARTS
        for number, part in enumerate(parts):
            engine.write((part,), record(a=number))
        assert sorted(engine.keys()) == sorted((part,) for part in parts)
        assert sorted(engine.children()) == sorted(parts)
        for number, part in enumerate(parts):
            assert int(engine.read((part,), "a")) == number
        for part in parts[::2]:
            engine.delete((part,))
        assert set(engine.children()) == set(parts[1::2])

    def test_arrays_dimensions_and_children_have_distinct_names(self, engine: Any) -> None:
        engine.write(("k",), Record("array", {"a": np.zeros(2)}, {}, {"a": ("x",)}))
        engine.write(("k", "child"), record(v=[1]))
        before, revision = content(engine), engine.revision()
        for action in each(
            lambda: engine.write(("k", "a"), record(v=[1])),
            lambda: engine.write(("k", "x", "below"), record(v=[1])),
            lambda: engine.write(("k",), record(child=[1])),
        ):
            with pytest.raises(AlreadyExists):
                action()
        assert_unchanged(engine, before, revision)

    def test_nothing_there(self, engine: Any) -> None:
        engine.write(("a", "b"), record(v=[1]))
        for key in [("x",), ("a", "x"), ("a", "b", "x"), ("a", "b", "v"), ("a", "v")]:
            _assert_nothing(engine, key)

    def test_what_needs_several_objects_at_once_is_refused(self, engine: Any, path: str) -> None:
        engine.write(("a",), record(v=[1]))
        before, revision = content(engine), engine.revision()
        for action in each(
            lambda: engine.move(("a",), ("b",)),
            lambda: engine.append(("s",), SPEC),
            lambda: self.open_waiting(path),
        ):
            with pytest.raises(EngineError, match="not available yet"):
                action()
        with pytest.raises(EngineError, match="not available yet"), engine.transaction():  # noqa: PT012
            engine.write(("b",), record(v=[1]))
            engine.delete(("a",))
        assert_unchanged(engine, before, revision)

    @staticmethod
    def open_waiting(path: str) -> Any:
        """Open a store and wait for another writer, which needs a lock."""
        raise TypeError(f"a suite needs a static method open_waiting(path) to open {path!r} with a timeout")

    def test_one_change_in_a_transaction(self, engine: Any) -> None:
        with engine.transaction(), engine.transaction():
            engine.write(("a",), record(v=[1]))
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            engine.write(("b",), record(v=[2]))
            raise ZeroDivisionError
        assert_holds(engine, {("a",): record(v=[1])})

    def test_the_revision_grows_with_every_change_of_anyone(self, engine: Any, path: str) -> None:
        other = self.open(path, "r")
        seen = [other.revision()]
        for action in each(
            lambda: engine.write(("k",), record(v=[1])),
            lambda: engine.update(("k",), {"x": 1}),
            lambda: engine.update((), {"x": 1}),
            lambda: engine.delete(("k",)),
        ):
            action()
            seen.append(other.revision())
        assert seen == sorted(set(seen))

    def test_everything_is_there_after_reopening(self, path: str) -> None:
        expected = {
            ("a",): Record("xarray", {"t": np.arange(3), "v": np.ones((3, 2))}, samples.METAS[1], {}),
            ("a", "b/c", ".."): Record("value", {}, samples.METAS[3], {}),
        }
        engine = self.open(path, "w")
        for key, made in expected.items():
            engine.write(key, made)
        engine.update((), {"title": "bench"})
        engine.close()
        for mode in ["r", "r+", "a"]:
            engine = self.open(engine.url, mode)
            assert_holds(engine, expected)
            assert_same_json(engine.stat(()).meta, {"title": "bench"})
            assert list(engine.verify()) == []
            engine.close()

    def test_modes(self, path: str) -> None:
        for mode in ["r", "r+"]:
            with pytest.raises(NotFound):
                self.open(path, mode)
        engine = self.open(path, "x")
        engine.write(("k",), record(v=[1]))
        engine.close()
        with pytest.raises(AlreadyExists):
            self.open(path, "x")
        for mode, keys in [("r+", [("k",)]), ("a", [("k",)]), ("w", [])]:
            assert list(self.open(path, mode).keys()) == keys

    def test_read_only(self, path: str) -> None:
        self.open(path, "w").write(("a",), record(v=[1]))
        engine = self.open(path, "r")
        assert engine.writable is False
        before, revision = content(engine), engine.revision()
        for action in each(
            lambda: engine.write(("new",), record(v=[1])),
            lambda: engine.update(("a",), {"x": 1}),
            lambda: engine.move(("a",), ("c",)),
            lambda: engine.delete(("a",)),
            lambda: engine.append(("s",), SPEC),
            lambda: engine.transaction().__enter__(),
        ):
            with pytest.raises(ReadOnly):
                action()
        assert_unchanged(engine, before, revision)

    def test_writers_of_different_records(self, path: str) -> None:
        self.open(path, "w")

        def work(number: int) -> None:
            engine = self.open(path, "a")
            for turn in range(3):
                made = Record("array", {"v": np.full(100, number * 10 + turn)}, {"turn": turn}, {})
                engine.write((f"t{number}", "k"), made)
                assert_record(engine, (f"t{number}", "k"), made)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        engine = self.open(path, "r")
        assert set(engine.keys()) == {(f"t{number}", "k") for number in range(4)}
        assert list(engine.verify()) == []

    def test_damage_is_told(self, path: str) -> None:
        engine = self.open(path, "w")
        engine.write(("a",), record(v=np.arange(100)))
        engine.write(("b",), record(v=[1]))
        for name in self.objects_of(path, ("a",)):
            before = self.flip(path, name)
            with pytest.raises(Corrupt):
                engine.stat(("a",)), engine.read(("a",), "v")
            assert {problem.key for problem in engine.verify()} == {("a",)}
            assert engine.read(("b",), "v").tolist() == [1]
            self.put(path, name, before)
        assert list(engine.verify()) == []

    @staticmethod
    def objects_of(path: str, key: Any) -> list[str]:
        """List the names of the objects of a record."""
        raise TypeError(f"a suite needs a static method objects_of(path, key) for {key!r} in {path!r}")

    @staticmethod
    def put(path: str, name: str, content: bytes) -> None:
        """Write an object."""
        raise TypeError(f"a suite needs a static method put(path, name, content) for {name!r} in {path!r}")

    def flip(self, path: str, name: str) -> bytes:
        """Change one bit in the middle of an object; gives what it was."""
        before = self.get(path, name)
        changed = bytearray(before)
        changed[len(changed) // 2] ^= 1
        self.put(path, name, bytes(changed))
        return before

    @staticmethod
    def get(path: str, name: str) -> bytes:
        """Read an object."""
        raise TypeError(f"a suite needs a static method get(path, name) for {name!r} in {path!r}")


def _assert_nothing(engine: Any, key: Any) -> None:
    for action in each(
        lambda: engine.stat(key),
        lambda: engine.read(key, "a"),
        lambda: list(engine.keys(key)),
        lambda: list(engine.children(key)),
        lambda: engine.update(key, {"x": 1}),
        lambda: engine.delete(key),
    ):
        with pytest.raises(NotFound):
            action()
