"""Writing a record and reading it back: types, shapes, metadata, names, selections, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from datastore_lab import dtypes
from datastore_lab.errors import AlreadyExists, BadKey, NotFound, NotStorable
from datastore_lab.integrity import LAYOUT
from datastore_lab.records import GROUP, Engine, Record, Traits, default_dims
from datastore_lab.testing import samples, strategies
from datastore_lab.testing.conformance.suite import (
    Suite,
    assert_record,
    assert_unchanged,
    content,
    each,
    every_dtype,
    record,
)
from datastore_lab.testing.equality import assert_same_array, assert_same_json

RELAXED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
    ],
)
"""For examples that write to a disk which others use too."""

SELECTIONS: tuple[tuple[Any, ...], ...] = (
    (),
    (2,),
    (-1,),
    (slice(1, 3),),
    (slice(None, None, 2), 1),
    (slice(None, None, -1),),
    (slice(4, 1, -2), slice(-3, None)),
    (slice(3, 3),),
    (slice(2, 1000), slice(-1000, 2)),
    (0, slice(None), 1),
    (1, 2, 3),
    (np.int64(1), slice(None, None, 3)),
)

_REFUSED: dict[str, tuple[Any, type[Exception]]] = {
    "no kind": (Record("", {}, {}, {}), BadKey),
    "kind of a group": (Record(GROUP, {}, {}, {}), BadKey),
    "array without a name": (record(**{"": [1]}), BadKey),
    "dimension without a name": (Record("array", {"a": np.zeros(2)}, {}, {"a": ("",)}), BadKey),
    "too few dimensions": (Record("array", {"a": np.zeros((2, 2))}, {}, {"a": ("x",)}), BadKey),
    "objects": (record(a=np.array([object()])), NotStorable),
    "an object field": (record(a=np.zeros(2, [("x", object)])), NotStorable),
    "meta with a set": (Record("array", {}, {"x": {1}}, {}), NotStorable),
    "meta with an array": (Record("array", {}, {"x": [np.zeros(2)]}, {}), NotStorable),
    "meta with a number as name": (Record("array", {}, {"x": {1: 2}}, {}), NotStorable),
    "meta with a lone surrogate": (Record("array", {}, {"x": "\ud800"}, {}), NotStorable),
    "meta with too large a number": (Record("array", {}, {"x": 1 << 20_000}, {}), NotStorable),
    "meta with a numpy scalar": (Record("array", {}, {"x": np.float32(1)}, {}), NotStorable),
}


class Basics(Suite):
    """One record, written and read."""

    def test_it_says_what_it_is(self, engine: Any) -> None:
        assert isinstance(engine, Engine)
        assert isinstance(engine.traits, Traits)
        assert isinstance(engine.url, str)
        assert engine.url
        assert engine.writable is True
        assert engine.layout in {None, LAYOUT}

    def test_a_new_store_is_an_empty_group(self, engine: Any) -> None:
        assert list(engine.keys()) == []
        assert list(engine.children()) == []
        stat = engine.stat(())
        assert (stat.kind, dict(stat.arrays), dict(stat.meta)) == (GROUP, {}, {})
        assert list(engine.verify()) == []

    @every_dtype
    def test_every_type_in_every_shape(self, engine: Any, dtype: np.dtype[Any]) -> None:
        made = Record(
            "array",
            {f"a{axes}": samples.array(dtype, shape, seed) for seed, (axes, shape) in enumerate(_shapes())},
            {},
            {},
        )
        engine.write(("k",), made)
        assert_record(engine, ("k",), made)
        for name, info in engine.stat(("k",)).arrays.items():
            assert info.dtype == dtypes.name(dtype)
            assert info.dims == default_dims(name, len(info.shape))
            if dtype.kind != "T":
                assert info.nbytes == made.arrays[name].nbytes
        assert list(engine.verify()) == []

    @every_dtype
    def test_parts_of_every_type(self, engine: Any, dtype: np.dtype[Any]) -> None:
        array = samples.array(dtype, (4, 3), 1)
        engine.write(("k",), record(a=array))
        for selection in [(1,), (slice(None, None, -2), slice(1, None)), (2, 2)]:
            assert_same_array(engine.read(("k",), "a", selection), array[(*selection, ...)])

    @RELAXED
    @given(array=strategies.arrays())
    def test_any_array(self, engine: Any, array: Any) -> None:
        engine.write(("k",), record(a=array))
        assert_same_array(engine.read(("k",), "a"), array)
        assert list(engine.verify()) == []

    def test_a_written_array_is_a_copy(self, engine: Any) -> None:
        array = np.arange(5)
        engine.write(("k",), record(a=array))
        array[:] = 0
        first = engine.read(("k",), "a")
        assert first.tolist() == [0, 1, 2, 3, 4]
        first[:] = 7
        assert engine.read(("k",), "a").tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("selection", SELECTIONS, ids=str)
    def test_selections_are_those_of_numpy(self, engine: Any, selection: Any) -> None:
        array = np.arange(5 * 4 * 6).reshape(5, 4, 6)
        engine.write(("k",), record(a=array))
        found = engine.read(("k",), "a", selection)
        assert isinstance(found, np.ndarray)
        assert_same_array(found, array[(*selection, ...)])

    @pytest.mark.parametrize("selection", [(5,), (-6,), (0, 0, 0, 0), (slice(None), 4)], ids=str)
    def test_selections_outside(self, engine: Any, selection: Any) -> None:
        engine.write(("k",), record(a=np.zeros((5, 4, 6))))
        with pytest.raises(IndexError):
            engine.read(("k",), "a", selection)

    def test_no_axes(self, engine: Any) -> None:
        engine.write(("k",), record(a=np.array(5, ">i4")))
        found = engine.read(("k",), "a")
        assert isinstance(found, np.ndarray)
        assert_same_array(found, np.array(5, ">i4"))
        with pytest.raises(IndexError):
            engine.read(("k",), "a", (0,))

    @pytest.mark.parametrize("number", range(len(samples.METAS)))
    def test_metadata_comes_back_equal(self, engine: Any, number: int) -> None:
        meta = samples.METAS[number]
        engine.write(("k",), Record("value", {"a": np.zeros(2)}, meta, {}))
        assert_same_json(engine.stat(("k",)).meta, meta)

    def test_codec_state_keeps_its_order(self, engine: Any) -> None:
        meta = {"lab_codec": {"z": 1, "a": {"y": 1, "b": [{"x": 1, "c": 2}]}}}
        engine.write(("k",), Record("value", {}, meta, {}))
        found = engine.stat(("k",)).meta["lab_codec"]
        assert list(found) == ["z", "a"]
        assert list(found["a"]) == ["y", "b"]
        assert list(found["a"]["b"][0]) == ["x", "c"]

    def test_attributes_of_arrays(self, engine: Any) -> None:
        attrs = {"a": dict(samples.METAS[1]), "b": {"units": "V", "n" * 300: [1], "a/b": {"x": None}}}
        made = Record("array", {"a": np.zeros(2), "b": np.zeros(3)}, {"lab_attrs": attrs, "own": 1}, {})
        engine.write(("k",), made)
        assert_same_json(engine.stat(("k",)).meta, made.meta)

    @RELAXED
    @given(meta=strategies.metas())
    def test_any_metadata(self, engine: Any, meta: Any) -> None:
        engine.write(("k",), Record("value", {}, meta, {}))
        assert_same_json(engine.stat(("k",)).meta, meta)
        engine.update(("k",), {"also": meta})
        assert_same_json(engine.stat(("k",)).meta, {**meta, "also": meta})

    def test_stat_gives_its_own_copy(self, engine: Any) -> None:
        meta = {"list": [1]}
        engine.write(("k",), Record("value", {}, meta, {}))
        meta["list"].append(2)
        engine.stat(("k",)).meta["list"].append(3)
        assert engine.stat(("k",)).meta == {"list": [1]}

    def test_all_odd_keys_side_by_side(self, engine: Any) -> None:
        parts = samples.PARTS
        with engine.transaction():
            for number, part in enumerate(parts):
                engine.write((part,), record(a=number))
        assert sorted(engine.keys()) == sorted((part,) for part in parts)
        assert sorted(engine.children()) == sorted(parts)
        for number, part in enumerate(parts):
            assert int(engine.read((part,), "a")) == number
        for part in parts[::2]:
            engine.delete((part,))
        assert set(engine.children()) == set(parts[1::2])

    @RELAXED
    @given(key=strategies.keys())
    def test_any_key(self, engine: Any, key: Any) -> None:
        made = Record("array", {"name of an array": np.arange(3)}, {"key": list(key)}, {})
        engine.write(key, made)
        assert_record(engine, key, made)
        assert key in set(engine.keys(key[:1]))
        engine.delete(key[:1])
        assert list(engine.keys()) == []

    def test_all_odd_names_of_arrays_and_dimensions(self, engine: Any) -> None:
        arrays = {part: np.full((1, 2), number) for number, part in enumerate(samples.PARTS)}
        dims = {part: (f"{part}!0", f"{part}!1") for part in samples.PARTS[::2]}
        made = Record("array", arrays, {"lab_attrs": {part: {"n": part} for part in arrays}}, dims)
        engine.write(("k",), made)
        assert_record(engine, ("k",), made)

    def test_dimensions_are_kept_and_shared(self, engine: Any) -> None:
        made = Record(
            "xarray",
            {"t": np.arange(3.0), "v": np.zeros((3, 2)), "w": np.zeros((2, 3)), "s": np.zeros(())},
            {},
            {"t": ("t",), "v": ("t", "x"), "w": ("x", "t")},
        )
        engine.write(("k",), made)
        assert_record(engine, ("k",), made)
        assert engine.stat(("k",)).arrays["s"].dims == ()

    @pytest.mark.parametrize(
        ("arrays", "dims"),
        [
            pytest.param({"a": (3,), "a_0": (5,)}, {}, id="an array named like a default dimension"),
            pytest.param({"a": (3,), "b": (5,)}, {"a": ("x",), "b": ("x",)}, id="one name, two sizes"),
            pytest.param({"a": (3, 3)}, {"a": ("x", "x")}, id="twice in one array"),
            pytest.param({"x": (3, 2)}, {"x": ("x", "y")}, id="a coordinate of two axes"),
            pytest.param({"x": (), "v": (3,)}, {"v": ("x",)}, id="a scalar named like a dimension"),
            pytest.param(
                {"x": (4,), "v": (3,)}, {"v": ("x",), "x": ("y",)}, id="an array over another dimension"
            ),
        ],
    )
    def test_odd_dimensions(self, engine: Any, arrays: Any, dims: Any) -> None:
        made = Record("arrays", {name: np.ones(shape) for name, shape in arrays.items()}, {}, dims)
        engine.write(("k",), made)
        assert_record(engine, ("k",), made)

    def test_a_record_without_arrays(self, engine: Any) -> None:
        engine.write(("k",), Record("value", {}, {"lab_codec": {"value": None}}, {}))
        assert_record(engine, ("k",), Record("value", {}, {"lab_codec": {"value": None}}, {}))

    def test_many_arrays(self, engine: Any) -> None:
        made = record(**{f"array {number}": np.full(2, number) for number in range(100)})
        engine.write(("k",), made)
        assert_record(engine, ("k",), made)
        assert list(engine.stat(("k",)).arrays) == list(made.arrays)

    def test_a_large_array(self, engine: Any) -> None:
        array = np.random.default_rng(0).integers(0, 1 << 16, (1000, 1000))
        engine.write(("k",), record(a=array))
        assert_same_array(engine.read(("k",), "a"), array)
        assert_same_array(engine.read(("k",), "a", (slice(10, 900, 100), 7)), array[10:900:100, 7])

    @pytest.mark.parametrize("what", _REFUSED)
    def test_what_is_refused_leaves_no_trace(self, engine: Any, what: str) -> None:
        made, error = _REFUSED[what]
        engine.write(("k",), record(a=[1]))
        before, revision = content(engine), engine.revision()
        with pytest.raises(error):
            engine.write(("k",), made)
        with pytest.raises(error):
            engine.write(("new", "k"), made)
        assert_unchanged(engine, before, revision)

    @pytest.mark.parametrize("key", [("",), ("a", ""), ("\ud800",), (1,), ("a", None)], ids=repr)
    def test_keys_that_no_store_holds(self, engine: Any, key: Any) -> None:
        actions = each(
            lambda: engine.write(key, record(a=[1])),
            lambda: engine.stat(key),
            lambda: engine.read(key, "a"),
            lambda: engine.update(key, {}),
            lambda: list(engine.keys(key)),
            lambda: list(engine.children(key)),
        )
        for action in actions:
            with pytest.raises(BadKey):
                action()

    def test_nothing_there(self, engine: Any) -> None:
        engine.write(("a", "b"), record(v=[1]))
        for key in [("x",), ("a", "x"), ("a", "b", "x"), ("a", "b", "v"), ("a", "v")]:
            _assert_nothing(engine, key)
        with pytest.raises(NotFound, match="'w'"):
            engine.read(("a", "b"), "w")
        with pytest.raises(NotFound):
            engine.read(("a",), "v")

    def test_arrays_dimensions_and_children_have_distinct_names(self, engine: Any) -> None:
        engine.write(("k",), Record("array", {"a": np.zeros(2)}, {}, {"a": ("x",)}))
        engine.write(("k", "child"), record(v=[1]))
        engine.write(("other",), record(v=[2]))
        before, revision = content(engine), engine.revision()
        for action in each(
            lambda: engine.write(("k", "a"), record(v=[1])),
            lambda: engine.write(("k", "a", "below"), record(v=[1])),
            lambda: engine.write(("k", "x"), record(v=[1])),
            lambda: engine.write(("k",), record(child=[1])),
            lambda: engine.write(("k",), Record("array", {"v": np.zeros(2)}, {}, {"v": ("child",)})),
            lambda: engine.move(("other",), ("k", "a")),
            lambda: engine.move(("other",), ("k", "x", "below")),
        ):
            with pytest.raises(AlreadyExists):
                action()
        assert_unchanged(engine, before, revision)


def _shapes() -> Any:
    return itertools.chain(enumerate(samples.SHAPES))


def _assert_nothing(engine: Any, key: Any) -> None:
    actions: dict[str, Callable[[], Any]] = {
        "stat": lambda: engine.stat(key),
        "read": lambda: engine.read(key, "a"),
        "keys": lambda: list(engine.keys(key)),
        "children": lambda: list(engine.children(key)),
        "update": lambda: engine.update(key, {"x": 1}),
        "delete": lambda: engine.delete(key),
        "move": lambda: engine.move(key, ("elsewhere",)),
        "verify": lambda: list(engine.verify(key)),
    }
    for name, action in actions.items():
        try:
            action()
        except NotFound:
            continue
        pytest.fail(f"{name}({key!r}) found something")
