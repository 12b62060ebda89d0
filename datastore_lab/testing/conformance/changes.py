"""Replacing, updating, moving and deleting; transactions; many threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from datastore_lab.errors import AlreadyExists, BadKey, NotFound, NotStorable
from datastore_lab.records import ARRAY_ATTRIBUTES, GROUP, Record
from datastore_lab.testing.conformance.streams import SPEC
from datastore_lab.testing.conformance.suite import (
    Suite,
    assert_holds,
    assert_record,
    assert_unchanged,
    content,
    each,
    record,
)
from datastore_lab.testing.equality import assert_same_json


class Changes(Suite):
    """Several records, and what happens to them."""

    def test_keys_come_in_a_stable_order_parents_first(self, engine: Any) -> None:
        for key in [("b", "y"), ("a",), ("b",), ("b", "x", "deep"), ("c", "only", "inner")]:
            engine.write(key, record(v=[1]))
        found = list(engine.keys())
        assert sorted(found) == [("a",), ("b",), ("b", "x", "deep"), ("b", "y"), ("c", "only", "inner")]
        assert found == list(engine.keys())
        assert [key for key in found if key[0] == "b"] == list(engine.keys(("b",)))
        assert found[found.index(("b",)) :][:3] == list(engine.keys(("b",)))  # a subtree lies together
        assert next(engine.keys(("b",))) == ("b",)  # and begins with its record
        assert list(engine.keys(("c", "only"))) == [("c", "only", "inner")]
        assert list(engine.children()) == list(dict.fromkeys(key[0] for key in found))
        assert sorted(engine.children(("b",))) == ["x", "y"]
        assert list(engine.children(("b", "y"))) == []
        assert engine.stat(("c",)).kind == GROUP

    def test_another_record_has_another_fingerprint(self, engine: Any) -> None:
        first = Record("one", {"a": np.zeros(3), "text": np.array(["x", "yy"], "T")}, {"x": 1}, {"a": ("t",)})
        others = [
            first._replace(kind="two"),
            first._replace(arrays={**first.arrays, "a": np.ones(3)}),
            first._replace(arrays={**first.arrays, "a": np.zeros(3, "i8")}),
            first._replace(arrays={**first.arrays, "text": np.array(["x", "zz"], "T")}),
            first._replace(arrays={**first.arrays, "b": np.zeros(0)}),
            first._replace(dims={"a": ("u",)}),
        ]
        engine.write(("k",), first)
        seen = [engine.fingerprint(("k",))]
        assert isinstance(seen[0], str)
        for turn, other in enumerate(others):
            engine.write(("k",), other)
            engine.write(("beside",), record(v=[turn]))
            seen.append(engine.fingerprint(("k",)))
        assert len(set(seen)) == len(seen)

    def test_a_fingerprint_stays_while_the_data_does(self, engine: Any) -> None:
        large = np.arange(400_000.0)
        engine.write(("k",), Record("one", {"a": large, "b": np.zeros(0)}, {"x": 1}, {}))
        engine.append(("s",), SPEC).close({})
        before = engine.fingerprint(("k",)), engine.fingerprint(("s",))
        for key in [("k",), ("s",)]:
            engine.update(key, {"x": 2, "new": "note"})
            engine.update(key, {}, drop=("new",))
            engine.write((*key, "child"), record(v=[1]))
        assert (engine.fingerprint(("k",)), engine.fingerprint(("s",))) == before
        engine.update(("k",), {ARRAY_ATTRIBUTES: {"a": {"unit": "V"}}})
        engine.move(("k",), ("moved",))
        engine.compact()
        assert (engine.fingerprint(("moved",)), engine.fingerprint(("s",))) == before
        large[-1] = -1.0
        engine.write(("moved",), Record("one", {"a": large, "b": np.zeros(0)}, {"x": 2}, {}))
        assert engine.fingerprint(("moved",)) != before[0]

    def test_a_fingerprint_of_nothing(self, engine: Any) -> None:
        engine.write(("a", "b"), record(v=[1]))
        assert isinstance(engine.fingerprint(("a",)), str)
        for key in [("x",), ("a", "x")]:
            with pytest.raises(NotFound):
                engine.fingerprint(key)

    def test_what_was_undone_leaves_the_fingerprint(self, engine: Any) -> None:
        engine.write(("k",), record(v=[1]))
        before = engine.fingerprint(("k",))
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            engine.write(("k",), record(v=[2]))
            assert engine.fingerprint(("k",)) != before
            raise ZeroDivisionError
        assert engine.fingerprint(("k",)) == before

    def test_children_come_one_by_one(self, engine: Any) -> None:
        for number in range(5):
            engine.write((f"k{number}",), record(v=[1]))
        names = engine.children()
        first = next(names)
        engine.write(("late",), record(v=[1]))  # a listing that has begun survives a change
        assert {first, *names} >= {"k0", "k1", "k2", "k3", "k4"}
        keys = engine.keys()
        begin = next(keys)
        engine.delete(("late",))
        assert {begin, *keys} >= {("k0",), ("k1",), ("k2",), ("k3",), ("k4",)}

    def test_a_record_is_replaced_whole_and_children_stay(self, engine: Any) -> None:
        engine.write(("k",), Record("one", {"a": np.zeros(3), "b": np.zeros(2)}, {"x": 1}, {"a": ("t",)}))
        engine.write(("k", "child"), record(v=[5]))
        second = Record("two", {"a": np.ones((2, 2), "i2"), "t": np.zeros(1)}, {"y": 2}, {})
        engine.write(("k",), second)
        assert_holds(engine, {("k",): second, ("k", "child"): record(v=[5])})

    def test_a_group_becomes_a_record(self, engine: Any) -> None:
        engine.write(("g", "child"), record(v=[1]))
        engine.update(("g",), {"note": "of the group"})
        engine.write(("g",), Record("value", {}, {"x": 1}, {}))
        assert engine.stat(("g",)).kind == "value"
        assert_same_json(engine.stat(("g",)).meta, {"x": 1})
        assert list(engine.keys()) == [("g",), ("g", "child")]

    def test_update_merges(self, engine: Any) -> None:
        made = Record("array", {"v": np.zeros(2)}, {"a": 1, "b": {"c": 2}, "lab_codec": {"s": 1}}, {})
        engine.write(("g", "k"), made)
        engine.update(("g", "k"), {"b": [1, None], "n": None, "µ/..": 2.0})
        assert_same_json(engine.stat(("g", "k")).meta, {**made.meta, "b": [1, None], "n": None, "µ/..": 2.0})
        assert engine.stat(("g", "k")).kind == "array"
        assert engine.read(("g", "k"), "v").tolist() == [0, 0]

    def test_update_removes_what_is_to_be_dropped(self, engine: Any) -> None:
        engine.write(
            ("g", "k"), Record("array", {"v": np.zeros(2)}, {"a": 1, "µ/..": 2, "lab_codec": {}}, {})
        )
        for key in [(), ("g",), ("g", "k")]:
            engine.update(key, {"a": 1, "µ/..": [1], "stays": None})
            engine.update(key, {"a": 2, "b": 3}, drop=("µ/..", "a", "absent"))
            meta = {**engine.stat(key).meta}
            meta.pop("lab_codec", None)
            assert_same_json(meta, {"a": 2, "b": 3, "stays": None})
        assert engine.read(("g", "k"), "v").tolist() == [0, 0]
        assert list(engine.verify()) == []

    def test_groups_and_the_root_have_attributes_too(self, engine: Any) -> None:
        engine.write(("g", "k"), record(v=[1]))
        for key in [(), ("g",)]:
            engine.update(key, {"title": "bench", "n": None})
            engine.update(key, {"title": "other"})
            assert_same_json(engine.stat(key).meta, {"title": "other", "n": None})
            assert engine.stat(key).kind == GROUP
        assert list(engine.keys()) == [("g", "k")]

    def test_update_of_the_attributes_of_arrays(self, engine: Any) -> None:
        engine.write(
            ("k",), Record("array", {"v": np.zeros(2)}, {"lab_attrs": {"v": {"units": "V", "x": 1}}}, {})
        )
        engine.update(("k",), {"lab_attrs": {"v": {"units": "A"}}})
        assert_same_json(engine.stat(("k",)).meta, {"lab_attrs": {"v": {"units": "A"}}})

    def test_refused_updates_leave_no_trace(self, engine: Any) -> None:
        engine.write(("k",), record(v=[1]))
        before, revision = content(engine), engine.revision()
        for meta in [{"good": 1, "bad": {1}}, {"bad": np.float32(1)}, {"bad": "\ud800"}]:
            with pytest.raises(NotStorable):
                engine.update(("k",), meta)
        assert_unchanged(engine, before, revision)

    def test_the_root_is_no_record(self, engine: Any) -> None:
        engine.write(("k",), record(v=[1]))
        before, revision = content(engine), engine.revision()
        for action in each(
            lambda: engine.write((), record(v=[1])),
            lambda: engine.delete(()),
            lambda: engine.move((), ("x",)),
            lambda: engine.move(("k",), ()),
        ):
            with pytest.raises(BadKey):
                action()
        assert_unchanged(engine, before, revision)

    def test_move_takes_everything_along(self, engine: Any) -> None:
        engine.write(("a", "b"), Record("x", {"v": np.arange(3)}, {"m": 1}, {"v": ("t",)}))
        engine.write(("a", "b", "c"), record(v=[2]))
        engine.update(("a",), {"of": "a"})
        engine.move(("a",), ("new", "place"))
        assert list(engine.keys()) == [("new", "place", "b"), ("new", "place", "b", "c")]
        assert_record(
            engine, ("new", "place", "b"), Record("x", {"v": np.arange(3)}, {"m": 1}, {"v": ("t",)})
        )
        assert_same_json(engine.stat(("new", "place")).meta, {"of": "a"})
        with pytest.raises(NotFound):
            engine.stat(("a",))
        engine.move(("new", "place", "b"), ("new", "up"))
        assert list(engine.keys()) == [("new", "up"), ("new", "up", "c")]
        assert sorted(engine.children(("new",))) == ["place", "up"]

    def test_moves_that_are_refused(self, engine: Any) -> None:
        engine.write(("a",), record(v=[1]))
        engine.write(("b", "c"), record(v=[2]))
        before, revision = content(engine), engine.revision()
        for old, new, error in [
            (("a",), ("b",), AlreadyExists),
            (("a",), ("b", "c"), AlreadyExists),
            (("a",), ("a", "below"), BadKey),
            (("b",), ("b", "c", "d"), BadKey),
            (("missing",), ("x",), NotFound),
        ]:
            with pytest.raises(error):
                engine.move(old, new)
        with pytest.raises((AlreadyExists, BadKey)):
            engine.move(("a",), ("a",))
        assert_unchanged(engine, before, revision)

    def test_delete_takes_everything_below(self, engine: Any) -> None:
        for key in [("a",), ("a", "b"), ("a", "b", "c"), ("ab",)]:
            engine.write(key, record(v=[1]))
        engine.delete(("a", "b"))
        assert list(engine.keys()) == [("a",), ("ab",)]
        engine.delete(("a",))
        assert list(engine.keys()) == [("ab",)]
        engine.write(("a",), record(w=[2]))
        assert list(engine.stat(("a",)).arrays) == ["w"]
        assert list(engine.children(("a",))) == []

    def test_a_key_takes_its_place_again_and_again(self, engine: Any) -> None:
        for number in range(10):
            made = record(v=np.full((number % 3, 2), number), **{f"w{number}": [1]})
            engine.write(("k",), made)
            assert_holds(engine, {("k",): made})
            if number % 4 == 3:
                engine.delete(("k",))

    def test_the_revision_grows_with_every_change(self, engine: Any) -> None:
        seen = [engine.revision()]
        for action in each(
            lambda: engine.write(("k",), record(v=[1])),
            lambda: engine.write(("k",), record(v=[1])),
            lambda: engine.update(("k",), {"x": 1}),
            lambda: engine.update((), {"x": 1}),
            lambda: engine.move(("k",), ("l",)),
            lambda: engine.delete(("l",)),
        ):
            action()
            seen.append(engine.revision())
        list(engine.keys())
        assert engine.revision() == seen[-1]
        assert seen == sorted(set(seen))

    def test_a_transaction_is_one_change(self, engine: Any) -> None:
        engine.write(("old",), record(v=[1]))
        with engine.transaction():
            engine.write(("a",), record(v=[2]))
            engine.move(("old",), ("new",))
            with engine.transaction():
                engine.update(("a",), {"x": 1})
            assert set(engine.keys()) == {("a",), ("new",)}  # one's own changes are seen inside
            assert engine.read(("a",), "v").tolist() == [2]
            assert engine.stat(("a",)).meta == {"x": 1}
        assert set(engine.keys()) == {("a",), ("new",)}
        assert engine.stat(("a",)).meta == {"x": 1}

    @pytest.mark.parametrize("there", [False, True])
    def test_what_was_begun_in_a_transaction_moves_in_it(self, engine: Any, *, there: bool) -> None:
        if there:
            engine.write(("g", "z"), record(v=[0]))
        with engine.transaction():
            for name in ("a", "b", "c"):
                engine.write(("g", "h", name), record(v=[ord(name)]))
            engine.move(("g", "h", "a"), ("a",))
            engine.move(("g", "h", "b"), ("a", "deep", "b"))
            engine.write(("g", "h", "a"), record(v=[1]))
            engine.move(("g", "h"), ("k",))
            engine.delete(("k", "c"))
        keys = {("a",), ("a", "deep", "b"), ("k", "a")} | ({("g", "z")} if there else set())
        assert set(engine.keys()) == keys
        found = [engine.read(key, "v").tolist() for key in (("a",), ("a", "deep", "b"), ("k", "a"))]
        assert found == [[ord("a")], [ord("b")], [1]]
        assert not list(engine.verify())

    def test_an_exception_undoes_everything(self, engine: Any) -> None:
        engine.write(("a",), Record("x", {"v": np.arange(3)}, {"m": [1]}, {"v": ("t",)}))
        engine.write(("a", "b"), record(v=[2]))
        engine.write(("c",), record(v=[3]))
        before = content(engine)
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            _change_everything(engine)
            assert set(engine.keys()) == {("z",), ("d",), ("d", "b")}
            raise ZeroDivisionError
        assert_unchanged(engine, before, engine.revision())
        engine.write(("after",), record(v=[4]))
        assert engine.read(("after",), "v").tolist() == [4]

    def test_an_exception_in_an_inner_transaction(self, engine: Any) -> None:
        engine.write(("a",), record(v=[1]))
        before = content(engine)
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            engine.write(("b",), record(v=[2]))
            with engine.transaction():
                engine.write(("c",), record(v=[2]))
                raise ZeroDivisionError
        assert_unchanged(engine, before, engine.revision())

    def test_a_refused_change_inside_a_transaction(self, engine: Any) -> None:
        with engine.transaction():
            engine.write(("a",), record(v=[1]))
            with pytest.raises(NotStorable):
                engine.write(("b",), record(v=np.array([object()])))
            with pytest.raises(NotFound):
                engine.delete(("missing",))
            engine.write(("c",), record(v=[3]))
        assert_holds(engine, {("a",): record(v=[1]), ("c",): record(v=[3])})

    def test_an_empty_transaction(self, engine: Any) -> None:
        with engine.transaction(), engine.transaction():
            pass
        assert list(engine.keys()) == []

    def test_compact_keeps_everything(self, engine: Any) -> None:
        for number in range(10):
            engine.write((f"k{number}",), record(v=np.full(10_000, number)))
        for number in range(0, 10, 2):
            engine.delete((f"k{number}",))
        expected: dict[Any, Record] = {
            (f"k{number}",): record(v=np.full(10_000, number)) for number in range(1, 10, 2)
        }
        assert engine.compact() >= 0
        assert_holds(engine, expected)
        engine.write(("more",), record(v=[1]))
        assert_holds(engine, {**expected, ("more",): record(v=[1])})

    def test_many_threads(self, engine: Any) -> None:
        barrier = threading.Barrier(8)

        def work(number: int) -> None:
            barrier.wait(60)
            for turn in range(5):
                made = Record("array", {"v": np.full(100, number * 100 + turn)}, {"turn": turn}, {})
                engine.write((f"t{number}", "k"), made)
                assert_record(engine, (f"t{number}", "k"), made)
                engine.update((f"t{number}", "k"), {"turn": turn + 1})
                others = set(engine.children())
                assert f"t{number}" in others
                for other in others:
                    values = engine.read((other, "k"), "v")
                    assert len(set(values.tolist())) == 1
                with engine.transaction():
                    engine.write((f"t{number}", "x"), made)
                    engine.delete((f"t{number}", "x"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert set(engine.keys()) == {(f"t{number}", "k") for number in range(8)}
        for number in range(8):
            assert engine.read((f"t{number}", "k"), "v")[0] == number * 100 + 4
            assert engine.stat((f"t{number}", "k")).meta == {"turn": 5}
        assert list(engine.verify()) == []


def _change_everything(engine: Any) -> None:
    engine.write(("a",), record(other=[9]))
    engine.update(("a", "b"), {"x": 1})
    engine.move(("a",), ("d",))
    engine.delete(("c",))
    engine.update((), {"title": "no"})
    engine.write(("z",), record(v=[1]))
