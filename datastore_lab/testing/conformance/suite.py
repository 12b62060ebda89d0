"""What the suites share: how an engine is opened, and how its content is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from datastore_lab.records import Engine, Record, Stat
from datastore_lab.testing import samples
from datastore_lab.testing.equality import assert_same_array, assert_same_json

if TYPE_CHECKING:
    from datastore_lab.keys import Key

every_dtype = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            dtype,
            id=str(dtype),
            marks=[pytest.mark.slow]
            if dtype.kind in "mM" and str(np.datetime_data(dtype)[0]) not in {"D", "s", "ns", "generic"}
            else [],
        )
        for dtype in samples.DTYPES
    ],
)
"""Parametrises a test over all types; the rarer units of time are slow, as they differ in nothing else."""


class Suite:
    """Base of the suites.

    Attributes
    ----------
    name : str
        File name of a store, with the suffix that the engine wants.
    """

    name: ClassVar[str] = "store"

    @staticmethod
    def open(path: str, mode: str) -> Any:
        """Open a store of the engine under test."""
        raise TypeError(f"a suite needs a static method open(path, mode) to open {path!r} with mode {mode!r}")

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        """Give a place for a store; nothing else is in its folder."""
        folder = tmp_path / "place"
        folder.mkdir()
        return str(folder / self.name)

    @pytest.fixture
    def engine(self, path: str) -> Iterator[Any]:
        """Open a new store and close it after the test."""
        engine = self.open(path, "a")
        yield engine
        engine.close()


def each(*actions: Callable[[], Any]) -> tuple[Callable[[], Any], ...]:
    """Give several actions to try one after the other."""
    return actions


def record(**arrays: Any) -> Record:
    """Make a record of kind ``"array"`` without metadata."""
    return Record("array", {name: np.asarray(values) for name, values in arrays.items()}, {}, {})


def content(engine: Engine, prefix: Key = ()) -> dict[Key, tuple[Stat, dict[str, Any]]]:
    """Read everything at or below a key."""
    found = {}
    for key in engine.keys(prefix):
        stat = engine.stat(key)
        found[key] = stat, {name: engine.read(key, name) for name in stat.arrays}
    return found


def assert_holds(engine: Engine, expected: Mapping[Key, Record]) -> None:
    """Check that a store holds these records and no others."""
    assert set(engine.keys()) == set(expected)
    for key, made in expected.items():
        assert_record(engine, key, made)


def assert_record(engine: Engine, key: Key, expected: Record) -> None:
    """Check one record: kind, metadata, names, types, shapes and bytes."""
    stat = engine.stat(key)
    assert stat.kind == expected.kind
    assert_same_json(stat.meta, expected.meta)
    assert set(stat.arrays) == set(expected.arrays)
    for name, array in expected.arrays.items():
        assert_same_array(engine.read(key, name), np.asarray(array), f"{key}, {name!r}")
        assert stat.arrays[name].shape == array.shape
        if name in expected.dims:
            assert stat.arrays[name].dims == tuple(expected.dims[name])


def assert_unchanged(
    engine: Engine, before: Mapping[Key, tuple[Stat, dict[str, Any]]], revision: int
) -> None:
    """Check that a refused change left no trace."""
    after = content(engine)
    assert after.keys() == before.keys()
    for key, (stat, arrays) in before.items():
        assert after[key][0] == stat
        for name, array in arrays.items():
            assert_same_array(after[key][1][name], array)
    assert engine.revision() == revision
