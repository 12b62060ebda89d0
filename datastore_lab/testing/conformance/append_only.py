"""What holds for formats that can be read and appended to, but not changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datastore_lab.errors import LabError, NotFound, ReadOnly
from datastore_lab.records import Engine, Traits
from datastore_lab.testing.conformance.files import crashed
from datastore_lab.testing.conformance.streams import SPEC, assert_stream, block, spec
from datastore_lab.testing.conformance.suite import Suite, content, each, record
from datastore_lab.testing.equality import assert_same_array, assert_same_json


class AppendOnlyConformance(Suite):
    """A file that one or more streams are appended to.

    Attributes
    ----------
    key : tuple of str
        A key that a stream of a new file can have.
    """

    key: tuple[str, ...] = ("stream",)

    def test_it_says_what_it_is(self, engine: Any) -> None:
        assert isinstance(engine, Engine)
        assert isinstance(engine.traits, Traits)
        assert engine.traits.appends

    def test_rows_come_back(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        for first in range(0, 1000, 100):
            stream.extend(block(first, 100))
            stream.flush()
        stream.close({"ended": True})
        engine.close()
        engine = self.open(path, "r")
        assert list(engine.keys()) == [self.key]
        assert_stream(engine, self.key, 1000)
        stat = engine.stat(self.key)
        assert stat.kind == "stream"
        assert_same_json(stat.meta["rate"], 1000.0)
        assert_same_json(stat.meta["units"], {"v": "V"})
        whole = block(0, 1000)["v"]
        for selection in [(slice(95, 105),), (slice(None, None, -7), 1), (-1,)]:
            assert_same_array(engine.read(self.key, "v", selection), whole[(*selection, ...)])
        assert list(engine.verify()) == []
        engine.close()

    def test_rows_of_several_types(self, path: str) -> None:
        arrays: dict[str, Any] = {"i": np.arange(3, dtype="i2"), "b": np.array([True, False, True])}
        arrays |= {"f": np.arange(12, dtype="f4").reshape(3, 2, 2), "t": np.arange(3).astype("M8[ns]")}
        engine = self.open(path, "w")
        stream = engine.append(
            self.key, spec(**{name: (rows.dtype, rows.shape[1:]) for name, rows in arrays.items()})
        )
        stream.extend(arrays)
        stream.close({})
        engine.close()
        engine = self.open(path, "r")
        for name, rows in arrays.items():
            assert_same_array(engine.read(self.key, name), rows)
        engine.close()

    def test_an_abandoned_file_has_what_was_flushed(self, path: str, tmp_path: Path) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        for turn in range(3):
            stream.extend(block(turn * 10, 10))
            stream.flush()
            copy = self.open(crashed(path, tmp_path / f"crash {turn}"), "r")
            assert_stream(copy, self.key, (turn + 1) * 10)
            copy.close()
        stream.close({})
        engine.close()

    def test_changes_are_refused(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        stream.extend(block(0, 5))
        stream.close({})
        engine.close()
        engine = self.open(path, "r")
        before = content(engine)
        for action in each(
            lambda: engine.write(("k",), record(v=[1])),
            lambda: engine.update(self.key, {"x": 1}),
            lambda: engine.move(self.key, ("k",)),
            lambda: engine.delete(self.key),
        ):
            with pytest.raises(ReadOnly):
                action()
        assert content(engine).keys() == before.keys()
        assert_stream(engine, self.key, 5)
        engine.close()

    def test_nothing_there(self, path: str) -> None:
        with pytest.raises(NotFound):
            self.open(path, "r")
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        stream.close({})
        engine.close()
        engine = self.open(path, "r")
        for action in each(
            lambda: engine.stat((*self.key, "x")),
            lambda: engine.read(self.key, "missing"),
            lambda: engine.read(("missing",), "v"),
        ):
            with pytest.raises(NotFound):
                action()
        engine.close()

    def test_other_files_are_refused(self, path: str) -> None:
        Path(path).write_bytes(b"not a store\n" * 100)
        with pytest.raises(LabError, match=Path(path).name):
            self.open(path, "r")
