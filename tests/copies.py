"""Stores to copy, and how a copy is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from engines import FILES, WHOLE, Case

from datastore_lab import open_store
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.registry import ENGINES
from datastore_lab.store import Store
from datastore_lab.testing.conformance.suite import content
from datastore_lab.testing.equality import assert_same_array, assert_same_json

MEMORY = Case("memory", "")
EVERY = [*WHOLE, MEMORY]
ONLY_APPENDED = [case for case in FILES if not case.whole]
SPEC = Stat(
    "stream",
    {
        "time": ArrayInfo("<i8", (0,), ("time",), 0, None),
        "v": ArrayInfo("<f8", (0, 2), ("time", "axis"), 0, None),
    },
    {"rate": 10.0, "units": {"v": "V"}, "lab_attrs": {"v": {"units": "V"}}},
)


def opened(case: Case, folder: Path, mode: str = "a") -> Store:
    if case is MEMORY:
        return Store(ENGINES.load("memory")())
    folder.mkdir(exist_ok=True)
    return open_store(folder / case.name, mode, durability="process")  # quicker, and the same otherwise


def stream(store: Store, key: Any, rows: int) -> None:
    appender = store.append(key, SPEC)
    appender.extend({"time": np.arange(rows), "v": np.arange(2.0 * rows).reshape(rows, 2)})
    appender.close({"lost": 0})


def fill(store: Store) -> None:
    """Put every kind of record, names that are hard, attributes on every level, and a group that is empty."""
    store["values/mixed"] = {"a": [1, 2.5, None, "µ"], "b": (True, 1 << 80), "c": np.arange(4)}
    store.put(
        "arrays/frames",
        np.arange(24, dtype=">i2").reshape(2, 3, 4),
        attrs={"unit": "counts", "nan": float("nan")},
    )
    store["arrays/none"] = np.zeros((0, 3), "M8[ns]")
    store["arrays/scalar"] = np.float16(2.5)
    store["arrays/text"] = np.array(["a", "", "äö"], np.dtypes.StringDType())
    store["a/b", "..", "é" * 100] = "odd"
    store.write(
        "named",
        Record("array", {"x": np.arange(3), "y": np.ones(2)}, {"k": {"deep": [1, None]}}, {"x": ("x",)}),
    )
    store.write("defaults", Record("array", {"data": np.ones((2, 3))}, {}, {}))
    store["defaults/data_0"] = "a child may be named like a dimension that nobody named"
    stream(store, "run/log", 50)
    store["run/log/notes"] = "below a stream"
    store["gone/item"] = 1
    store.delete("gone/item")
    store.update((), {"title": "bench", "nothing": None})
    store.update("arrays", {"sample": "7b"})
    store.update("gone", {"kept": True})


def assert_copied(source: Store, target: Store) -> None:
    """Check that both hold the same, to the last bit, independently of how copying compares."""
    theirs, ours = (content(store.engine, store.prefix) for store in (source, target))
    assert {key[len(source.prefix) :] for key in theirs} == {key[len(target.prefix) :] for key in ours}
    for key, (stat, arrays) in theirs.items():
        copy, copied = ours[target.prefix + key[len(source.prefix) :]]
        assert copy.kind == stat.kind
        assert_same_json(copy.meta, stat.meta)
        assert sorted(copied) == sorted(arrays)
        for name, array in arrays.items():
            assert_same_array(copied[name], array)
            assert copy.arrays[name][:3] == stat.arrays[name][:3]
