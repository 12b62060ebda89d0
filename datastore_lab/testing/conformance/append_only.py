"""What holds for formats that can be read and appended to, but not changed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datastore_lab import dtypes
from datastore_lab.errors import (
    AlreadyExists,
    Corrupt,
    EngineError,
    LabError,
    Locked,
    NotFound,
    NotStorable,
    ReadOnly,
)
from datastore_lab.integrity import LAYOUT
from datastore_lab.records import Engine, Traits
from datastore_lab.testing import samples
from datastore_lab.testing.conformance.files import crashed
from datastore_lab.testing.conformance.rows import check_lists
from datastore_lab.testing.conformance.streams import SPEC, assert_stream, block, spec
from datastore_lab.testing.conformance.suite import Suite, content, each, every_dtype, record
from datastore_lab.testing.equality import assert_same_array, assert_same_json


class AppendOnlyConformance(Suite):
    """A file that one or more streams are appended to.

    Attributes
    ----------
    key : tuple of str
        A key that a stream of a new file can have.
    other : bytes
        Content of a file that the engine can't take for one of its own.
    """

    key: tuple[str, ...] = ("stream",)
    other: bytes = b"not a store\n" * 100

    def stored(self, path: str) -> list[Path]:
        """List the files of the store, none of which may hold anything that is not checked."""
        return sorted(file for file in Path(path).parent.rglob("*") if file.is_file())

    def closed(self, path: str, rows: int = 300) -> None:
        """Make a store of one closed stream."""
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        for first in range(0, rows, 100):
            stream.extend(block(first, 100))
            stream.flush()
        stream.close({"ended": True, "note": "one note"})
        engine.close()

    def test_it_says_what_it_is(self, engine: Any) -> None:
        assert isinstance(engine, Engine)
        assert isinstance(engine.traits, Traits)
        assert engine.traits.appends
        assert engine.layout is None

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
        assert engine.layout == LAYOUT
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

    @every_dtype
    def test_rows_of_every_type(self, path: str, dtype: np.dtype[Any]) -> None:
        arrays = {"v": samples.array(dtype, (7,), 1)}
        if dtype.kind not in "TU":  # (text in more axes is not for every table)
            arrays["w"] = samples.array(dtype, (7, 2, 3), 2)
        engine = self.open(path, "w")
        stream = engine.append(
            self.key, spec(**{name: (dtype, rows.shape[1:]) for name, rows in arrays.items()})
        )
        stream.extend({name: rows[:3] for name, rows in arrays.items()})
        stream.flush()
        stream.extend({name: rows[3:] for name, rows in arrays.items()})
        for name, rows in arrays.items():
            assert_same_array(engine.read(self.key, name), rows[:3])
        stream.close({})
        engine.close()
        engine = self.open(path, "r")
        for name, rows in arrays.items():
            assert_same_array(engine.read(self.key, name), rows)
            assert_same_array(engine.read(self.key, name, (slice(5, 0, -2),)), rows[5:0:-2])
            assert_same_array(engine.read(self.key, name, (2,)), rows[2:3].reshape(rows.shape[1:]))
            assert engine.stat(self.key).arrays[name].dtype == dtypes.name(dtype)
        assert list(engine.verify()) == []
        engine.close()

    def test_every_kind_of_attribute(self, path: str) -> None:
        for meta in samples.METAS:
            engine = self.open(path, "w")
            stream = engine.append(self.key, SPEC._replace(meta=meta))
            stream.extend(block(0, 3))
            assert_same_json(engine.stat(self.key).meta, meta)
            stream.close({"last": 1})
            assert_same_json(engine.stat(self.key).meta, {**meta, "last": 1})
            engine.close()
            engine = self.open(path, "r")
            assert_same_json(engine.stat(self.key).meta, {**meta, "last": 1})
            engine.close()

    def test_a_stream_keeps_its_fingerprint_as_it_grows(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        stream.extend(block(0, 100))
        stream.flush()
        seen = {engine.fingerprint(self.key)}
        for first in range(100, 1000, 100):
            stream.extend(block(first, 100))
            stream.flush()
            seen.add(engine.fingerprint(self.key))
        stream.close({"ended": True})
        seen.add(engine.fingerprint(self.key))
        engine.close()
        engine = self.open(path, "r")
        seen.add(engine.fingerprint(self.key))
        engine.close()
        assert len(seen) == 1
        for _ in range(2):
            self.closed(path)
            engine = self.open(path, "r")
            seen.add(engine.fingerprint(self.key))
            with pytest.raises(NotFound):
                engine.fingerprint(("nothing", "there"))
            engine.close()
        assert len(seen) == 3

    def test_rows_show_at_the_flush(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        reader = self.open(path, "r")
        revisions = [reader.revision()]
        for turn in range(4):
            stream.extend(block(turn * 5, 5))
            assert_stream(reader, self.key, turn * 5)
            stream.flush()
            assert_stream(reader, self.key, turn * 5 + 5)
            revisions.append(reader.revision())
        stream.close({"ended": True})
        assert_stream(reader, self.key, 20)
        assert reader.stat(self.key).meta["ended"] is True
        revisions.append(reader.revision())
        assert revisions == sorted(set(revisions))
        reader.close()
        engine.close()

    def test_rows_that_do_not_fit(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        stream.extend(block(0, 2))
        for rows in [
            {"time": np.zeros(2, "i8")},
            {**block(0, 2), "more": np.zeros(2)},
            {"time": np.zeros(2, "i8"), "v": np.zeros((3, 2))},
            {"time": np.array([0.5]), "v": np.zeros((1, 2))},
            [("time", np.zeros(2, "i8")), ("v", np.zeros((2, 2)))],
        ]:
            with pytest.raises(NotStorable):
                stream.extend(rows)
        with pytest.raises(NotStorable):
            stream.close({"bad": {1}})
        stream.extend(block(2, 1))
        stream.close({})
        stream.close({"again": 1})
        with pytest.raises(EngineError):
            stream.extend(block(0, 1))
        with pytest.raises(AlreadyExists):
            engine.append(self.key, SPEC)
        assert_stream(engine, self.key, 3)
        engine.close()
        with pytest.raises(EngineError):
            engine.stat(self.key)

    def test_rows_in_lists(self, path: str) -> None:
        engine = self.open(path, "w")
        check_lists(engine, self.key)
        engine.close()

    def test_two_writers_of_one_stream(self, path: str) -> None:
        first, second = self.open(path, "a"), self.open(path, "a")
        stream = first.append(self.key, SPEC)
        with pytest.raises(Locked, match=f"process {os.getpid()}"):
            second.append(self.key, SPEC)
        stream.extend(block(0, 4))
        stream.close({})
        with pytest.raises(AlreadyExists):
            second.append(self.key, SPEC)
        assert_stream(second, self.key, 4)
        first.close()
        second.close()

    def test_no_flipped_bit_goes_unseen(self, path: str, tmp_path: Path) -> None:
        self.closed(path)
        reader = self.open(path, "r")
        expected, chance = reader.stat(self.key), random.Random(1)  # noqa: S311
        reader.close()
        for file in self.stored(path):
            whole = file.read_bytes()
            places = {chance.randrange(len(whole)) for _ in range(60)} | {0, len(whole) - 1, len(whole) // 2}
            for at in places:
                flipped = bytearray(whole)
                flipped[at] ^= 1 << chance.randrange(8)
                file.write_bytes(flipped)
                assert self._seen(path, expected), f"byte {at} of {len(whole)} of {file.name}"
            file.write_bytes(whole)
        assert not self._seen(path, expected)

    def _seen(self, path: str, expected: Any) -> bool:
        """Whether damage is found; whatever can be read has to be what was written."""
        try:
            engine = self.open(path, "r")
        except LabError:
            return True
        found = False
        try:
            assert list(engine.keys()) == [self.key]
            found = bool(list(engine.verify()))
            stat = engine.stat(self.key)
            assert stat == expected
            rows = block(0, 300)
            for name, array in rows.items():
                try:
                    assert_same_array(engine.read(self.key, name), array)
                except Corrupt:
                    found = True
        except Corrupt:
            found = True
        finally:
            engine.close()
        return found

    def test_repair_finishes_what_a_killed_writer_left(self, path: str, tmp_path: Path) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        stream.extend(block(0, 30))
        stream.flush()
        left = crashed(path, tmp_path / "left")
        stream.close({})
        engine.close()
        engine = self.open(left, "a")
        assert_stream(engine, self.key, 30)
        assert all(done.mended for done in engine.repair())
        assert list(engine.repair()) == []
        assert_stream(engine, self.key, 30)
        assert list(engine.verify()) == []
        assert_same_json(engine.stat(self.key).meta, SPEC.meta)
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

    def test_a_stream_that_is_begun_whole_is_there_when_it_is_closed(self, path: str, tmp_path: Path) -> None:
        engine = self.open(path, "w")
        for ending in ("abandoned", "left", "closed"):
            stream = engine.append_whole(self.key, SPEC)
            with pytest.raises(AlreadyExists):
                engine.append(self.key, SPEC)
            for turn in range(3):
                stream.extend(block(turn * 10, 10))
                stream.flush()
                assert list(engine.keys()) == []
                copy = self.open(crashed(path, tmp_path / f"{ending} {turn}"), "a")
                assert list(copy.keys()) == []
                again = copy.append_whole(self.key, SPEC)
                again.extend(block(0, 4))
                again.close({})
                assert_stream(copy, self.key, 4)
                copy.close()
            if ending == "abandoned":
                stream.abandon()
            if ending == "left":
                engine.close()
                engine = self.open(path, "a")
        before = len(self.stored(path))
        stream.close({"end": 1})
        assert_stream(engine, self.key, 30)
        assert engine.stat(self.key).meta["end"] == 1
        assert list(engine.verify()) == []
        assert len(self.stored(path)) < before  # (the lock is gone)
        with pytest.raises(AlreadyExists):
            engine.append_whole(self.key, SPEC)
        engine.close()
        reader = self.open(path, "r")
        assert_stream(reader, self.key, 30)
        reader.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
    def test_a_fork_leaves_the_streams_of_its_parent_alone(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(self.key, SPEC)
        stream.extend(block(0, 10))
        child = os.fork()
        if not child:
            refused = False
            try:
                stream.extend(block(10, 500))
            except EngineError as error:
                refused = str(os.getppid()) in str(error)
            stream.flush()
            engine.close()
            os._exit(0 if refused else 1)
        assert os.waitpid(child, 0)[1] == 0
        other = self.open(path, "a")
        with pytest.raises(Locked):  # still
            other.append(self.key, SPEC)
        other.close()
        stream.extend(block(10, 10))
        stream.close({})
        assert_stream(engine, self.key, 20)
        assert list(engine.verify()) == []
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
        Path(path).write_bytes(self.other)
        with pytest.raises(LabError, match=Path(path).name):
            self.open(path, "r")
