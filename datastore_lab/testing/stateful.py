"""Any sequence of changes, held against a plain mapping: a state machine for every engine.

The machine writes, replaces, updates, moves, deletes, appends, commits and aborts; after each step the
store must hold exactly what the model holds. For engines with files it also closes and opens the store, and
abandons it: the files are copied as they lie there, as after a crash, and what opens from the copy must be
what had been acknowledged.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datastore_lab.errors import AlreadyExists, BadKey, NotFound
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing import strategies
from datastore_lab.testing.equality import assert_same_array, assert_same_json
from datastore_lab.testing.model import Model

if TYPE_CHECKING:
    from datastore_lab.keys import Key

QUICK = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
"""Enough to see that nothing is broken; `THOROUGH` is for the long run."""

THOROUGH = settings(QUICK, max_examples=100, stateful_step_count=40)

_PARTS = st.sampled_from(["a", "b", "A", "..", "a/b", "µ", "n" * 300, "zarr.json", "data"])
_KEYS = st.lists(_PARTS, min_size=1, max_size=3).map(tuple)
_NAMES = st.sampled_from(["data", "b", "t", "a/b", "lab_kind"])


class Abort(Exception):
    """Raised inside a transaction to undo it."""


@st.composite
def _records(draw: st.DrawFn) -> Record:
    arrays = draw(st.dictionaries(_NAMES, strategies.arrays(), max_size=2))
    dims = {
        name: tuple(f"{name} axis {axis}" for axis in range(array.ndim))
        for name, array in arrays.items()
        if draw(st.booleans())
    }
    return Record(draw(st.sampled_from(["array", "value"])), arrays, draw(strategies.metas()), dims)


class EngineMachine(RuleBasedStateMachine):
    """Any changes on one engine; subclass it and set `open`.

    Attributes
    ----------
    name : str
        File name of the store.
    files : bool
        Whether the store is files that can be copied as they lie there.
    served : bool
        Whether the store outlives the engine in the files of a server, which no test can copy.
    open : static method
        ``open(path, mode)`` gives an engine.
    """

    name: ClassVar[str] = "store"
    files: ClassVar[bool] = True
    served: ClassVar[bool] = False

    @staticmethod
    def open(path: str, mode: str) -> Any:
        """Open a store of the engine under test."""
        raise TypeError(
            f"a machine needs a static method open(path, mode) to open {path!r} with mode {mode!r}"
        )

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-machine-")))
        (self.folder / "place").mkdir()
        self.path = str(self.folder / "place" / self.name)
        self.copies = 0
        self.model = Model()
        self.stream: Any = None
        self.stream_key: Key = ()
        self.rows = 0
        self.flushed = 0
        self.engine = self.open(self.path, "w")

    def teardown(self) -> None:
        """Close the store and remove its files."""
        self.engine.close()
        self.stack.close()

    def change(self, on_engine: Callable[[Any], Any], on_model: Callable[[Model], Any]) -> None:
        """Make the same change on both; they must agree on whether it is allowed."""
        try:
            on_model(self.model)
        except (NotFound, AlreadyExists, BadKey) as error:
            try:
                on_engine(self.engine)
            except type(error):
                return
            raise AssertionError(f"the engine allowed what the model refuses: {error}") from error
        on_engine(self.engine)

    @rule(key=_KEYS, record=_records())
    def write(self, key: Key, record: Record) -> None:
        """Write a new record or replace one, but not the one that grows."""
        if self._grows(key, exactly=True):
            return
        self.change(lambda engine: engine.write(key, record), lambda model: model.write(key, record))

    @rule(key=_KEYS | st.just(()), meta=strategies.metas())
    def update(self, key: Key, meta: dict[str, Any]) -> None:
        """Merge attributes."""
        self.change(lambda engine: engine.update(key, meta), lambda model: model.update(key, meta))

    @rule(old=_KEYS, new=_KEYS)
    def move(self, old: Key, new: Key) -> None:
        """Move a subtree, also to where it can't go."""
        if self._grows(old):
            return
        self.change(lambda engine: engine.move(old, new), lambda model: model.move(old, new))

    @rule(key=_KEYS)
    def delete(self, key: Key) -> None:
        """Delete a subtree."""
        if self._grows(key):
            return
        self.change(lambda engine: engine.delete(key), lambda model: model.delete(key))

    def _grows(self, key: Key, *, exactly: bool = False) -> bool:
        """Say whether a key is, or has below it, the record that is growing."""
        if self.stream is None:
            return False
        return key == (self.stream_key if exactly else self.stream_key[: len(key)])

    @rule(data=st.data(), commit=st.booleans(), inner=st.booleans())
    def transaction(self, data: st.DataObject, commit: bool, inner: bool) -> None:
        """Make several changes as one, and keep or undo them; with a crash in the middle of it."""
        before = self.model.copy()
        try:
            with ExitStack() as around:
                around.enter_context(self.engine.transaction())
                if inner:
                    around.enter_context(self.engine.transaction())
                for _ in range(data.draw(st.integers(0, 3))):
                    self._any_change(data)
                self._check(self.engine, self.model)
                self._check_crash(before)
                _end(commit=commit)
        except Abort:
            self.model = before

    def _any_change(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(["write", "update", "move", "delete"]))
        key = data.draw(_KEYS)
        if which == "write":
            self.write(key, data.draw(_records()))
        elif which == "update":
            self.update(key, data.draw(strategies.metas()))
        elif which == "move":
            self.move(key, data.draw(_KEYS))
        else:
            self.delete(key)

    @precondition(lambda self: self.stream is None)
    @rule(key=_KEYS, dtype=st.sampled_from(["i4", ">f8", "U3", "T", "M8[ns]"]))
    def begin_stream(self, key: Key, dtype: str) -> None:
        """Begin a record that grows; everything else goes on meanwhile."""
        spec = Stat(
            "stream", {"v": ArrayInfo(_canonical(dtype), (0, 2), ("time", "channel"), 0, None)}, {"rate": 1.0}
        )
        made = Record("stream", {"v": np.empty((0, 2), _type(dtype))}, spec.meta, {"v": ("time", "channel")})

        def begin(engine: Any) -> None:
            self.stream = engine.append(key, spec)

        self.change(begin, lambda model: model.begin(key, made))
        if self.stream is not None:
            self.stream_key, self.rows, self.flushed = key, 0, 0

    @precondition(lambda self: self.stream is not None)
    @rule(count=st.integers(0, 300), flush=st.booleans())
    def extend_stream(self, count: int, flush: bool) -> None:
        """Add rows, which show at the next flush."""
        dtype = self.model.records[self.stream_key].arrays["v"].dtype
        self.stream.extend({"v": _rows(dtype, self.rows, count)})
        self.rows += count
        if flush:
            self.stream.flush()
            self._flushed(dtype)

    @precondition(lambda self: self.stream is not None)
    @rule(meta=strategies.metas())
    def end_stream(self, meta: dict[str, Any]) -> None:
        """Close the growing record."""
        self.stream.close(meta)
        self._flushed(self.model.records[self.stream_key].arrays["v"].dtype)
        self.model.update(self.stream_key, meta)
        self.stream = None

    def _flushed(self, dtype: Any) -> None:
        self.flushed = self.rows
        record = self.model.records[self.stream_key]
        self.model.records[self.stream_key] = record._replace(arrays={"v": _rows(dtype, 0, self.rows)})

    @precondition(lambda self: (self.files or self.served) and self.stream is None)
    @rule(mode=st.sampled_from(["a", "r+"]))
    def reopen(self, mode: str) -> None:
        """Close the store and open it again."""
        self.engine.close()
        reader = self.open(self.path, "r")
        self._check(reader, self.model)
        reader.close()
        self.engine = self.open(self.path, mode)

    @rule()
    def crash(self) -> None:
        """Abandon the store as it is: what was acknowledged is in its files."""
        self._check_crash(self.model)

    @rule()
    def compact(self) -> None:
        """Give back space; nothing may be lost by it."""
        if self.stream is None:
            self.engine.compact()

    def _check_crash(self, expected: Model) -> None:
        if not self.files:
            return
        self.copies += 1
        copy = self.folder / f"crash {self.copies}"
        shutil.copytree(self.folder / "place", copy, symlinks=True)
        engine = self.open(str(copy / self.name), "a")
        self._check(engine, expected)
        assert list(engine.verify()) == []
        engine.write(("after the crash",), Record("value", {}, {}, {}))
        engine.close()
        shutil.rmtree(copy)

    @invariant()
    def holds(self) -> None:
        """Compare everything."""
        self._check(self.engine, self.model)

    def _check(self, engine: Any, model: Model) -> None:
        assert set(engine.keys()) == set(model.records)
        for key in model.nodes():
            assert set(engine.children(key)) == model.children(key), key
            stat = engine.stat(key)
            assert stat.kind == model.kind(key), key
            assert_same_json(stat.meta, model.meta(key), f"{key}: meta")
        for key, record in model.records.items():
            arrays = engine.stat(key).arrays
            assert set(arrays) == set(record.arrays), key
            for name, array in record.arrays.items():
                assert_same_array(engine.read(key, name), array, f"{key}, {name!r}")


def _end(*, commit: bool) -> None:
    if not commit:
        raise Abort


def _type(dtype: str) -> np.dtype[Any]:
    return np.dtypes.StringDType() if dtype == "T" else np.dtype(dtype)


def _canonical(dtype: str) -> str:
    return "T" if dtype == "T" else np.dtype(dtype).str


def _rows(dtype: Any, first: int, count: int) -> Any:
    numbers = np.arange(2 * first, 2 * (first + count)).reshape(count, 2)
    return numbers.astype("U").astype(dtype) if dtype.kind in "UT" else numbers.astype(dtype)
