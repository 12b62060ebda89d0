"""Rows of a record that grows: of every type, in any form that holds them, and none that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datastore_lab import dtypes
from datastore_lab.errors import NotStorable
from datastore_lab.testing import samples
from datastore_lab.testing.conformance.streams import SPEC, assert_stream, block, spec
from datastore_lab.testing.conformance.suite import Suite, every_dtype
from datastore_lab.testing.equality import assert_same_array

HIDDEN = np.ma.array([1], mask=[True])
MIXED: dict[str, Any] = {
    "i": (">i2", ()), "v": ("f8", (2,)), "b": ("?", ()), "s": ("S3", ()), "t": (np.dtypes.StringDType(), ())
}  # fmt: skip
TAKEN: tuple[dict[str, Any], ...] = (
    {
        "i": [1, -2],
        "v": [[1, 0.5], [np.nan, 1 << 60]],
        "b": [True, 0],
        "s": [b"a", b"abc"],
        "t": ["x", "é\0"],
    },
    {"i": (3,), "v": [np.array([2.0, 3.0])], "b": (False,), "s": [b""], "t": ("",)},
    {"i": range(4, 6), "v": np.eye(2), "b": np.zeros(2, "?"), "s": [b"b", b"c"], "t": ["y", "z"]},
    {"i": [], "v": [], "b": (), "s": [], "t": []},
)
REFUSED: dict[str, list[Any]] = {
    "i": [[0.5], [1 << 20], [1 << 70], ["1"], [None], [[1]], 1, {1}, np.array(1), HIDDEN],
    "v": [[[1, (1 << 53) + 1]], [[1]], [[1], [2, 3]], [1], [[1, 2j]], [["1", "2"]], "12", [(1, None)]],
    "b": [[2], ["x"], [0.5], True],
    "s": [[b"long"], [b"a\0"], ["a"], [1], b"a", np.array([1])],
    "t": [[1], [None], [b"a"], "a", np.array([0.5])],
}


class Rows(Suite):
    """What a record that grows is handed."""

    @every_dtype
    def test_rows_of_every_type(self, engine: Any, dtype: np.dtype[Any]) -> None:
        rows, deep = samples.array(dtype, (7,), 1), samples.array(dtype, (7, 2, 3), 2)
        stream = engine.append(("s",), spec(v=(dtype, ()), w=(dtype, (2, 3))))
        stream.extend({"v": rows[:3], "w": deep[:3]})
        stream.flush()
        stream.extend({"v": rows[3:], "w": deep[3:]})
        stream.close({})
        assert_same_array(engine.read(("s",), "v"), rows)
        assert_same_array(engine.read(("s",), "w"), deep)
        assert engine.stat(("s",)).arrays["w"].dtype == dtypes.name(dtype)
        assert list(engine.verify()) == []

    def test_rows_that_are_views(self, engine: Any) -> None:
        stream = engine.append(("s",), spec(v=("f8", (2,))))
        rows = np.arange(40.0).reshape(2, 20).T
        stream.extend({"v": rows[::2]})
        stream.extend({"v": rows[::-1]})
        stream.close({})
        assert_same_array(engine.read(("s",), "v"), np.concatenate([rows[::2], rows[::-1]]))

    def test_no_rows(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 0))
        stream.flush()
        assert_stream(engine, ("s",), 0)
        stream.extend(block(0, 2))
        stream.extend(block(2, 0))
        stream.close({})
        assert_stream(engine, ("s",), 2)

    def test_rows_of_a_type_that_fits(self, engine: Any) -> None:
        stream = engine.append(("s",), spec(i=(">i2", ()), f=("f4", ()), s=("S3", ())))
        stream.extend(
            {"i": np.array([1, -2]), "f": np.array([0.5, np.inf]), "s": np.array([b"a", b"bcd"], "S9")}
        )
        one: dict[str, Any] = {"i": np.zeros(1, "i2"), "f": np.zeros(1), "s": np.array([b"x"])}
        for name, rows in [("i", [1 << 20]), ("i", [0.5]), ("f", [0.1]), ("s", [b"long"])]:
            with pytest.raises(NotStorable, match=repr(name)):
                stream.extend({**one, name: np.array(rows)})
        stream.close({})
        assert_same_array(engine.read(("s",), "i"), np.array([1, -2], ">i2"))
        assert_same_array(engine.read(("s",), "f"), np.array([0.5, np.inf], "f4"))
        assert_same_array(engine.read(("s",), "s"), np.array([b"a", b"bcd"], "S3"))

    def test_rows_in_lists(self, engine: Any) -> None:
        check_lists(engine, ("s",))

    @pytest.mark.parametrize(
        "rows",
        [
            {"time": np.zeros(2, "i8")},
            {**block(0, 2), "more": np.zeros(2)},
            {"time": np.zeros(2, "i8"), "v": np.zeros((3, 2))},
            {"time": np.zeros(2, "i8"), "v": np.zeros((2, 3))},
            {"time": np.zeros(2, "i8"), "v": np.zeros(2)},
            {},
            [("time", np.zeros(2, "i8")), ("v", np.zeros((2, 2)))],
        ],
        ids=["missing", "unknown", "lengths", "row shape", "axes", "empty", "no mapping"],
    )
    def test_rows_that_do_not_fit(self, engine: Any, rows: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 2))
        with pytest.raises(NotStorable):
            stream.extend(rows)
        stream.extend(block(2, 1))
        stream.close({})
        assert_stream(engine, ("s",), 3)


def check_lists(engine: Any, key: Any) -> None:
    """Check that lists are taken as what the declared types make of them without a loss, or are refused."""
    stream = engine.append(key, spec(**MIXED))
    for rows in TAKEN:
        stream.extend(rows)
        for name, others in REFUSED.items():
            for other in others:
                with pytest.raises(NotStorable, match=repr(name)):
                    stream.extend({**TAKEN[1], name: other})
        stream.flush()
    stream.close({})
    for name, (dtype, row) in MIXED.items():
        whole = [np.array(rows[name], dtype).reshape(-1, *row) for rows in TAKEN]
        assert_same_array(engine.read(key, name), np.concatenate(whole, dtype=dtype))
