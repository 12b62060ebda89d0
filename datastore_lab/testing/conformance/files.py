"""What holds for engines that keep their records in files: reopening, modes, abandonment, damage."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, LabError, NotFound, ReadOnly
from datastore_lab.integrity import LAYOUT
from datastore_lab.records import Record
from datastore_lab.testing import samples
from datastore_lab.testing.conformance.streams import SPEC, assert_stream, block
from datastore_lab.testing.conformance.suite import Suite, assert_holds, assert_unchanged, content, record
from datastore_lab.testing.equality import assert_same_json

_FLIPS = 25


def crashed(path: str, to: Path) -> str:
    """Copy the files of an open store as they are, as if its process had ended here.

    Gives the path of the copy. The folder of the store must hold nothing else.
    """
    place = Path(path).parent
    shutil.copytree(place, to, symlinks=True)
    return str(to / Path(path).name)


class Files(Suite):
    """What is left when the engine is gone."""

    def test_everything_is_there_after_reopening(self, path: str) -> None:
        expected: dict[Any, Record] = {
            ("a",): Record(
                "xarray", {"t": np.arange(3), "v": np.ones((3, 2))}, samples.METAS[1], {"t": ("t",)}
            ),
            ("a", "b/c", ".."): Record("value", {}, samples.METAS[3], {}),
            **{("odd", part): record(**{part: [1, 2]}) for part in samples.PARTS},
            **{
                ("types", str(i)): record(a=samples.array(t, (2, 3), i)) for i, t in enumerate(samples.DTYPES)
            },
        }
        engine = self.open(path, "w")
        with engine.transaction():
            for key, made in expected.items():
                engine.write(key, made)
        engine.update((), {"title": "bench"})
        order = list(engine.keys())
        engine.close()
        for mode in ["r", "r+", "a"]:
            engine = self.open(path, mode)
            assert_holds(engine, expected)
            assert list(engine.keys()) == order
            assert_same_json(engine.stat(()).meta, {"title": "bench"})
            assert list(engine.verify()) == []
            engine.close()

    def test_the_url_opens_the_same_store(self, path: str) -> None:
        engine = self.open(path, "w")
        engine.write(("k",), record(v=[1]))
        engine.close()
        again = self.open(engine.url, "r")
        assert list(again.keys()) == [("k",)]
        again.close()

    def test_the_layout_is_that_in_which_it_was_written(self, path: str) -> None:
        for mode in ["w", "r", "r+"]:
            engine = self.open(path, mode)
            assert engine.layout == LAYOUT
            engine.close()
        with pytest.raises(EngineError):
            _ = engine.layout

    def test_modes(self, path: str) -> None:
        for mode in ["r", "r+"]:
            with pytest.raises(NotFound):
                self.open(path, mode)
            assert not list(Path(path).parent.iterdir())
        engine = self.open(path, "x")
        engine.write(("k",), record(v=[1]))
        engine.close()
        with pytest.raises(AlreadyExists):
            self.open(path, "x")
        for mode, keys in [("r+", [("k",)]), ("a", [("k",)]), ("w", [])]:
            engine = self.open(path, mode)
            assert engine.writable is True
            assert list(engine.keys()) == keys
            engine.close()

    def test_a_mode_that_does_not_exist(self, path: str) -> None:
        with pytest.raises((LabError, ValueError)):
            self.open(path, "rw")
        assert not list(Path(path).parent.iterdir())

    def test_a_parent_that_does_not_exist(self, path: str) -> None:
        with pytest.raises(LabError, match="missing"):
            self.open(str(Path(path).parent / "missing" / self.name), "a")
        assert not list(Path(path).parent.iterdir())

    def test_read_only(self, path: str) -> None:
        engine = self.open(path, "w")
        engine.write(("a",), Record("array", {"v": np.arange(3)}, {"m": 1}, {}))
        engine.write(("b",), record(v=[1]))
        engine.close()
        files = _bytes(path)
        engine = self.open(path, "r")
        assert engine.writable is False
        before, revision = content(engine), engine.revision()
        for action in _CHANGES:
            with pytest.raises(ReadOnly):
                action(engine)
        assert_unchanged(engine, before, revision)
        engine.close()
        assert _bytes(path) == files

    def test_several_readers(self, path: str) -> None:
        engine = self.open(path, "w")
        engine.write(("a",), record(v=[1, 2]))
        engine.close()
        readers = [self.open(path, "r") for _ in range(3)]
        for reader in readers:
            assert reader.read(("a",), "v").tolist() == [1, 2]
        for reader in readers:
            reader.close()

    def test_appending_after_reopening_needs_a_new_stream(self, path: str) -> None:
        engine = self.open(path, "w")
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 5))
        stream.close({"end": True})
        engine.close()
        engine = self.open(path, "a")
        with pytest.raises(AlreadyExists):
            engine.append(("s",), SPEC)
        assert_stream(engine, ("s",), 5)
        engine.append(("t",), SPEC).close({})
        engine.close()

    def test_an_abandoned_engine_leaves_what_was_acknowledged(self, path: str, tmp_path: Path) -> None:
        engine = self.open(path, "w")
        engine.write(("old",), record(v=[0]))
        expected: dict[Any, Record] = {}
        for number in range(6):
            made = Record("array", {"v": np.full(1000, number)}, {"n": number}, {})
            engine.write(("k", str(number)), made)
            expected["k", str(number)] = made
            if number == 2:
                engine.delete(("old",))
            elif number > 2:
                engine.move(("k", str(number - 3)), ("moved", str(number)))
                expected["moved", str(number)] = expected.pop(("k", str(number - 3)))
            left = {**expected, **({("old",): record(v=[0])} if number < 2 else {})}
            self._check_crash(path, tmp_path / f"crash {number}", left)
        engine.close()

    def test_what_was_closed_inside_a_transaction_is_undone(self, path: str) -> None:
        engine = self.open(path, "a")
        engine.write(("k",), record(a=[1]))
        with pytest.raises(EngineError), engine.transaction():  # noqa: PT012
            engine.write(("new",), record(a=[2]))
            engine.close()
        again = self.open(path, "r+")
        assert_holds(again, {("k",): record(a=[1])})
        again.close()

    def test_an_abandoned_transaction_is_undone(self, path: str, tmp_path: Path) -> None:
        engine = self.open(path, "w")
        expected = {("a",): record(v=np.arange(1000)), ("b", "c"): record(v=[2])}
        for key, made in expected.items():
            engine.write(key, made)
        with engine.transaction():
            engine.write(("a",), record(w=np.zeros(5000)))
            engine.delete(("b",))
            engine.write(("new",), record(v=np.ones(100_000)))
            self._check_crash(path, tmp_path / "inside", expected)
        engine.close()
        engine = self.open(path, "r")
        assert_holds(engine, {("a",): record(w=np.zeros(5000)), ("new",): record(v=np.ones(100_000))})
        engine.close()

    def test_an_abandoned_stream_has_what_was_flushed(self, path: str, tmp_path: Path) -> None:
        engine = self.open(path, "w")
        stream = engine.append(("s",), SPEC)
        for turn in range(4):
            stream.extend(block(turn * 100, 100))
            stream.flush()
            stream.extend(block((turn + 1) * 100, 7))
            copy = self.open(crashed(path, tmp_path / f"crash {turn}"), "a")
            assert_stream(copy, ("s",), (turn + 1) * 100)
            assert list(copy.verify()) == []
            copy.write(("more",), record(v=[1]))
            copy.close()
            stream.close({}) if turn == 3 else None
            if turn < 3:
                stream = self._again(engine, turn)
        engine.close()

    def _again(self, engine: Any, turn: int) -> Any:
        """Begin the stream anew, up to where the next turn wants it."""
        engine.delete(("s",))
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, (turn + 1) * 100))
        return stream

    def _check_crash(self, path: str, to: Path, expected: dict[Any, Record]) -> None:
        for mode in ["a", "r"]:
            engine = self.open(crashed(path, to / mode), mode)
            assert_holds(engine, expected)
            assert list(engine.verify()) == []
            engine.close()

    def test_a_description_reads_no_payload(self, path: str) -> None:
        engine = self.open(path, "w")
        array = np.random.default_rng(0).integers(0, 255, 1 << 25, np.uint8)
        engine.write(("big",), Record("array", {"data": array}, {"m": 1}, {}))
        engine.close()
        engine = self.open(path, "r")
        before = _bytes_read()
        assert engine.stat(("big",)).arrays["data"].shape == array.shape
        assert list(engine.keys()) == [("big",)]
        assert list(engine.children()) == ["big"]
        assert _bytes_read() - before < array.nbytes / 8
        engine.close()

    def test_a_part_is_read_without_the_rest(self, path: str) -> None:
        engine = self.open(path, "w")
        array = np.random.default_rng(0).integers(0, 255, (1 << 12, 1 << 13), np.uint8)
        engine.write(("big",), record(data=array))
        engine.close()
        engine = self.open(path, "r")
        before = _bytes_read()
        assert (engine.read(("big",), "data", (slice(5, 9),)) == array[5:9]).all()
        assert _bytes_read() - before < array.nbytes / 3
        engine.close()

    def test_flipped_bytes_are_found(self, path: str, tmp_path: Path) -> None:
        """A byte of the payload that is not what it was is reported, or reading it fails; it never lies."""
        array = np.random.default_rng(1).integers(0, 255, 200_000, np.uint8)
        engine = self.open(path, "w")
        engine.write(("k",), record(data=array))
        engine.close()
        draw = random.Random(7)  # noqa: S311
        for number in range(_FLIPS):
            copy = crashed(path, tmp_path / f"flip {number}")
            files = [file for file in Path(copy).parent.rglob("*") if file.is_file()]
            largest = max(files, key=lambda file: file.stat().st_size)
            _flip(largest, draw.uniform(0.2, 0.8))
            assert self._finds(copy), f"a flip in {largest.name} went unnoticed"

    def _finds(self, path: str) -> bool:
        try:
            engine = self.open(path, "r")
        except LabError:
            return True
        try:
            problems = list(engine.verify())
            assert all(problem.key == ("k",) and problem.what for problem in problems)
            return bool(problems)
        except Corrupt:
            return True
        finally:
            engine.close()

    def test_other_files_are_refused_and_stay(self, path: str) -> None:
        place = Path(path)
        for content_ in [b"", b"not a store\n" * 100, bytes(range(256)) * 64]:
            place.write_bytes(content_)
            for mode in ["r", "r+", *(["a"] if content_ else [])]:
                with pytest.raises(LabError, match=place.name):
                    self.open(path, mode)
                assert place.read_bytes() == content_
                assert list(place.parent.iterdir()) == [place]

    def test_a_store_that_loses_its_end(self, path: str, tmp_path: Path) -> None:
        """A store that was cut gives a typed error or reports it, and never other values."""
        engine = self.open(path, "w")
        for number in range(3):
            engine.write((f"k{number}",), record(data=np.random.default_rng(number).random(5000)))
        engine.close()
        for share in [0.1, 0.5, 0.9, 0.99]:
            copy = crashed(path, tmp_path / f"cut {share}")
            files = [file for file in Path(copy).parent.rglob("*") if file.is_file()]
            largest = max(files, key=lambda file: file.stat().st_size)
            with largest.open("r+b") as handle:
                handle.truncate(int(largest.stat().st_size * share))
            self._assert_typed(copy)

    def _assert_typed(self, path: str) -> None:
        try:
            engine = self.open(path, "r")
        except LabError:
            return
        found = 0
        for number in range(3):
            expected = np.random.default_rng(number).random(5000)
            try:
                assert (engine.read((f"k{number}",), "data") == expected).all()
                found += 1
            except LabError:
                continue
        assert found < 3
        engine.close()


_CHANGES: tuple[Any, ...] = (
    lambda engine: engine.write(("new",), record(v=[1])),
    lambda engine: engine.write(("a",), record(v=[1])),
    lambda engine: engine.update(("a",), {"x": 1}),
    lambda engine: engine.move(("a",), ("c",)),
    lambda engine: engine.delete(("a",)),
    lambda engine: engine.append(("s",), SPEC),
    lambda engine: engine.compact(),
    lambda engine: engine.transaction().__enter__(),
)


def _flip(file: Path, share: float) -> None:
    with file.open("r+b") as handle:
        position = int(file.stat().st_size * share)
        handle.seek(position)
        byte = handle.read(1)[0]
        handle.seek(position)
        handle.write(bytes([byte ^ 0x10]))


def _bytes(path: str) -> dict[str, bytes]:
    place = Path(path).parent
    return {str(file): file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file()}


def _bytes_read() -> int:
    """Count the bytes that this process has read from files, where the system counts them."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return 0
    return int(counters.read_text().split("rchar: ")[1].split()[0])
