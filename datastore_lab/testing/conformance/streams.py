"""Records that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datastore_lab import dtypes
from datastore_lab.errors import AlreadyExists, BadKey, EngineError, LabError, NotFound, NotStorable
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing.conformance.suite import (
    Suite,
    assert_unchanged,
    content,
    each,
    record,
)
from datastore_lab.testing.equality import assert_same_array, assert_same_json


def spec(**arrays: tuple[Any, tuple[int, ...]]) -> Stat:
    """Describe a stream of arrays given by type and row shape, over the dimension ``time``."""
    infos = {
        name: ArrayInfo(
            dtypes.name(np.dtype(dtype)),
            (0, *row),
            ("time", *(f"{name}_{axis}" for axis in range(1, len(row) + 1))),
            0,
            None,
        )
        for name, (dtype, row) in arrays.items()
    }
    return Stat("stream", infos, {"rate": 1000.0, "units": {"v": "V"}, "unknown": None})


def block(first: int, count: int) -> dict[str, Any]:
    """Make rows of the stream that most tests use."""
    rows = np.arange(first, first + count)
    return {"time": rows.astype("i8"), "v": np.stack([rows * 0.5, -rows], 1).reshape(count, 2)}


SPEC = spec(time=("i8", ()), v=("f8", (2,)))


class Streams(Suite):
    """A record that grows, while it is read."""

    def test_rows_show_at_the_flush(self, engine: Any) -> None:
        stream = engine.append(("run", "adc"), SPEC)
        assert_stream(engine, ("run", "adc"), 0)
        stream.extend(block(0, 3))
        assert_stream(engine, ("run", "adc"), 0)
        stream.flush()
        assert_stream(engine, ("run", "adc"), 3)
        stream.extend(block(3, 1))
        stream.extend(block(4, 1000))
        assert_stream(engine, ("run", "adc"), 3)
        stream.flush()
        assert_stream(engine, ("run", "adc"), 1004)
        stream.flush()
        stream.extend(block(1004, 5))
        stream.close({"ended": True, "unknown": 1})
        assert_stream(engine, ("run", "adc"), 1009)
        stat = engine.stat(("run", "adc"))
        assert_same_json(stat.meta, {**SPEC.meta, "ended": True, "unknown": 1})
        assert stat.kind == "stream"
        assert list(engine.keys()) == [("run", "adc")]
        assert list(engine.verify()) == []

    def test_a_stream_is_there_from_the_beginning(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stat = engine.stat(("s",))
        assert stat.kind == "stream"
        assert_same_json(stat.meta, SPEC.meta)
        assert {name: info.shape for name, info in stat.arrays.items()} == {"time": (0,), "v": (0, 2)}
        assert stat.arrays["v"].dims == ("time", "v_1")
        assert engine.read(("s",), "v").shape == (0, 2)
        stream.close({})

    def test_the_block_may_be_reused(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        rows = block(0, 4)
        stream.extend(rows)
        rows["time"][:] = -1
        rows["v"][:] = -1
        stream.close({})
        assert_stream(engine, ("s",), 4)

    def test_parts_of_a_stream(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        for first in range(0, 5000, 500):
            stream.extend(block(first, 500))
            stream.flush()
        whole = block(0, 5000)["v"]
        for selection in [(slice(490, 510),), (slice(None, None, -999), 1), (-1,), (slice(4999, 9000),)]:
            assert_same_array(engine.read(("s",), "v", selection), whole[(*selection, ...)])
        stream.close({})

    def test_several_streams_at_once(self, engine: Any) -> None:
        streams = {number: engine.append(("run", f"s{number}"), SPEC) for number in range(4)}
        for turn in range(5):
            for number, stream in streams.items():
                stream.extend(block(turn * number, number))
                if (turn + number) % 2:
                    stream.flush()
            engine.write(("other",), record(v=[turn]))  # the store takes other changes meanwhile
        for number, stream in streams.items():
            stream.close({"number": number})
            assert_stream(engine, ("run", f"s{number}"), 5 * number)
        assert engine.read(("other",), "v").tolist() == [4]

    def test_where_a_stream_can_begin(self, engine: Any) -> None:
        engine.write(("k",), Record("array", {"a": np.zeros(2)}, {}, {"a": ("x",)}))
        engine.write(("group", "child"), record(v=[1]))
        before, revision = content(engine), engine.revision()
        for key, error in [
            (("k",), AlreadyExists),
            (("k", "a"), AlreadyExists),
            (("k", "x"), AlreadyExists),
            ((), BadKey),
            (("",), BadKey),
        ]:
            with pytest.raises(error):
                engine.append(key, SPEC)
        with pytest.raises(NotStorable):
            engine.append(("s",), SPEC._replace(meta={"bad": {1}}))
        assert_unchanged(engine, before, revision)
        engine.append(("group",), SPEC).close({})
        assert list(engine.keys(("group",))) == [("group",), ("group", "child")]

    def test_a_closed_stream(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 1))
        stream.close({"end": 1})
        stream.close({"end": 2})
        assert engine.stat(("s",)).meta["end"] == 1
        with pytest.raises(EngineError):
            stream.extend(block(1, 1))
        with pytest.raises(AlreadyExists):
            engine.append(("s",), SPEC)
        engine.delete(("s",))
        engine.append(("s",), SPEC).close({})

    def test_a_finished_stream_is_an_ordinary_record(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 10))
        stream.close({})
        engine.move(("s",), ("a", "b"))
        engine.update(("a", "b"), {"note": "moved"})
        assert_stream(engine, ("a", "b"), 10)
        assert engine.stat(("a", "b")).meta["note"] == "moved"
        engine.write(("a", "b"), record(v=[1]))
        assert engine.stat(("a", "b")).kind == "array"
        engine.delete(("a",))
        with pytest.raises(NotFound):
            engine.stat(("a", "b"))

    def test_rows_flushed_in_a_transaction_come_with_its_commit(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 2))
        with engine.transaction():
            stream.extend(block(2, 1))
            stream.flush()
            assert_stream(engine, ("s",), 3)
            with engine.transaction():
                stream.extend(block(3, 2))
                stream.flush()
        stream.extend(block(5, 1))
        with engine.transaction():
            stream.close({"end": 1})
        assert_stream(engine, ("s",), 6)
        assert engine.stat(("s",)).meta["end"] == 1
        assert list(engine.verify()) == []

    def test_rows_flushed_in_a_transaction_that_is_undone(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 2))
        stream.flush()
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            stream.extend(block(2, 3))
            stream.flush()
            assert_stream(engine, ("s",), 5)
            raise ZeroDivisionError
        assert_stream(engine, ("s",), 2)
        assert_undone(stream)
        assert_stream(engine, ("s",), 2)
        engine.append(("s", "more"), SPEC).close({})
        assert list(engine.verify()) == []

    def test_a_stream_begun_in_a_transaction_that_is_undone(self, engine: Any) -> None:
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            stream = engine.append(("s",), SPEC)
            stream.extend(block(0, 2))
            raise ZeroDivisionError
        assert_undone(stream)
        engine.append(("s",), SPEC).close({})
        assert_undone(stream)  # the one that is there now is another
        assert_stream(engine, ("s",), 0)

    def test_a_stream_closed_in_a_transaction_that_is_undone(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            stream.close({"end": 1})
            raise ZeroDivisionError
        assert_undone(stream)
        assert "end" not in engine.stat(("s",)).meta

    def test_rows_that_waited_while_a_transaction_was_undone(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 2))
        with pytest.raises(ZeroDivisionError), engine.transaction():  # noqa: PT012
            engine.write(("other",), record(v=[1]))
            stream.extend(block(2, 1))
            raise ZeroDivisionError
        stream.extend(block(3, 1))
        stream.close({})
        assert_stream(engine, ("s",), 4)

    @pytest.mark.parametrize("waiting", [0, 2], ids=["no rows wait", "rows wait"])
    @pytest.mark.parametrize("how", ["deleted", "moved", "deleted with what is above"])
    def test_a_stream_whose_record_is_gone(self, engine: Any, how: str, waiting: int) -> None:
        stream = engine.append(("run", "s"), SPEC)
        stream.extend(block(0, 3))
        stream.flush()
        stream.extend(block(3, waiting))
        if how == "moved":
            engine.move(("run", "s"), ("kept",))
        else:
            engine.delete(("run", "s") if how == "deleted" else ("run",))
        before, revision = content(engine), engine.revision()
        for _ in range(2):
            with pytest.raises(NotFound, match=r"run/s.* any more.*append"):
                stream.close({"end": 1})
        assert_unchanged(engine, before, revision)
        if how == "moved":
            assert_stream(engine, ("kept",), 3)

    @pytest.mark.parametrize("waiting", [0, 2], ids=["no rows wait", "rows wait"])
    @pytest.mark.parametrize("how", ["written over", "another stream", "another record moved there"])
    def test_a_stream_whose_record_was_replaced(self, engine: Any, how: str, waiting: int) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 3))
        stream.flush()
        stream.extend(block(3, waiting))
        replace_stream(engine, how)
        before, revision = content(engine), engine.revision()
        for _ in range(2):
            with pytest.raises(EngineError, match=r"'s'.*another record.*append"):
                stream.close({"end": 1})
        assert_unchanged(engine, before, revision)

    def test_refused_metadata_at_the_end_leaves_the_stream_open(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        stream.extend(block(0, 2))
        with pytest.raises(LabError):
            stream.close({"bad": {1}})
        stream.extend(block(2, 1))
        stream.close({"good": 1})
        assert_stream(engine, ("s",), 3)
        assert engine.stat(("s",)).meta["good"] == 1

    def test_the_revision_grows_with_every_flush(self, engine: Any) -> None:
        seen = [engine.revision()]
        stream = engine.append(("s",), SPEC)
        for turn in range(3):
            seen.append(engine.revision())
            stream.extend(block(turn, 1))
            stream.flush()
        seen.append(engine.revision())
        stream.close({})
        assert seen == sorted(set(seen))

    def test_a_stream_keeps_its_fingerprint_as_it_grows(self, engine: Any) -> None:
        stream = engine.append(("s",), SPEC)
        seen = {engine.fingerprint(("s",))}
        for turn in range(40):
            stream.extend(block(100 * turn, 100))
            stream.flush()
            seen.add(engine.fingerprint(("s",)))
        engine.update(("s",), {"note": "while it grows"})
        stream.close({"ended": True})
        seen.add(engine.fingerprint(("s",)))
        engine.compact()
        seen.add(engine.fingerprint(("s",)))
        assert len(seen) == 1

    def test_what_replaces_a_stream_has_another_fingerprint(self, engine: Any) -> None:
        def begun() -> Any:
            stream = engine.append(("s",), SPEC)
            stream.extend(block(0, 10))
            stream.flush()
            seen.append(engine.fingerprint(("s",)))
            return stream

        seen: list[str] = []
        begun().close({})
        whole = Record("stream", block(0, 10), SPEC.meta, {name: i.dims for name, i in SPEC.arrays.items()})
        engine.write(("s",), whole)
        seen.append(engine.fingerprint(("s",)))
        for _ in range(2):
            engine.delete(("s",))
            engine.compact()
            begun().close({})
        assert len(set(seen)) == len(seen)


def replace_stream(engine: Any, how: str) -> None:
    """Put another record in the place of the stream ``s``."""
    if how == "written over":
        engine.write(("s",), record(v=[1]))
        return
    if how == "another stream":
        engine.delete(("s",))
        engine.append(("s",), SPEC).close({})
        return
    engine.append(("other",), SPEC).close({})
    engine.move(("s",), ("kept",))
    engine.move(("other",), ("s",))


def assert_stream(engine: Any, key: Any, length: int) -> None:
    """Check that a stream of `block` shows so many rows, in all its arrays."""
    expected = block(0, length)
    stat = engine.stat(key)
    for name, rows in expected.items():
        assert stat.arrays[name].shape == rows.shape, name
        found = engine.read(key, name)
        assert found.shape == rows.shape
        assert_same_array(found, rows)


def assert_undone(stream: Any) -> None:
    """Check that a stream whose rows were undone takes no more, and says why."""
    for action in each(
        lambda: stream.extend(block(0, 1)), stream.flush, lambda: stream.close({}), lambda: stream.close({})
    ):
        with pytest.raises(EngineError, match="transaction that was undone"):
            action()
