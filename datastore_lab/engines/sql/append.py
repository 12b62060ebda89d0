"""Records that grow: rows wait in memory and become visible, all together, in one commit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.engines.sql.arrays import Array, encode_text
from datastore_lab.engines.sql.parts import GROWING, Block, as_bytes
from datastore_lab.records import Growth, Record, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.sql.change import Change
    from datastore_lab.engines.sql.engine import SQLEngine
    from datastore_lab.keys import Key

_WAITING = 16 << 20
"""Rows are committed without being asked once they take this many bytes."""


def empty_record(spec: Stat) -> Record:
    """Give the record without rows."""
    arrays = {
        name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype)) for name, info in spec.arrays.items()
    }
    return Record(spec.kind, arrays, spec.meta, {name: info.dims for name, info in spec.arrays.items()})


class _Growing:
    """One block that grows along its first axis: the bytes of its last, partial part are at hand."""

    def __init__(self, number: int, inner: tuple[int, ...]) -> None:
        self.block = Block(number, (0, *inner), GROWING)
        self.tail = np.empty((0, *inner), np.uint8)

    def copy(self) -> _Growing:
        twin = _Growing(self.block.id, self.block.shape[1:])
        twin.block, twin.tail = self.block, self.tail
        return twin

    def add(self, change: Change, rows: NDArray[np.uint8]) -> None:
        """Write rows: new parts, and once more the last partial one."""
        length = self.block.shape[0]
        whole = self.block._replace(shape=(length + len(rows), *self.block.shape[1:]))
        if not rows.size:
            self.block = whole
            return
        if whole.axis:
            first = math.prod(whole.shape[1 : whole.axis]) * whole.across * length
            for number, piece in whole._replace(shape=rows.shape).numbered(rows):
                change.put_part(whole.id, first + number, piece.tobytes())
        else:
            self._add_rows(change, whole, rows)
        self.block = whole

    def _add_rows(self, change: Change, whole: Block, rows: NDArray[np.uint8]) -> None:
        step, held = whole.step, len(self.tail)
        number, start = self.block.shape[0] // step, 0
        while start < len(rows):
            room = step - held
            piece = rows[start : start + room]
            if held:
                piece = np.concatenate([self.tail, piece])
                change.replace_part(whole.id, number, piece.tobytes())
            else:
                change.put_part(whole.id, number, piece.tobytes())
            start, number, held = start + room, number + 1, 0
        self.tail = piece.copy() if len(piece) < step else piece[:0].copy()


class _Column:
    """One growing array: its items, and for text the UTF-8 beside them."""

    def __init__(self, array: Array) -> None:
        self.array, self.dtype, self.shape = array, array.numpy, array.shape
        self.items = _Growing(array.id, array.items.shape[1:])
        self.text = _Growing(array.text[0], (1,)) if array.text else None

    def copy(self) -> _Column:
        twin = _Column(self.array)
        twin.items, twin.text = self.items.copy(), self.text.copy() if self.text else None
        return twin

    def add(self, change: Change, rows: NDArray[Any]) -> None:
        text = self.array.text
        if self.text and text:
            spans, utf8 = encode_text(rows, text[1])
            self.text.add(change, np.frombuffer(utf8, np.uint8).reshape(-1, 1))
            text, rows = (text[0], text[1] + len(utf8)), spans
        self.items.add(change, as_bytes(rows))
        shape = (self.array.shape[0] + len(rows), *self.array.shape[1:])
        self.array = self.array._replace(shape=shape, text=text)


class SQLAppender:
    """A record of a SQL store that grows along axis 0 of all its arrays. Made by `SQLEngine.append`."""

    def __init__(self, engine: SQLEngine, key: Key, arrays: Mapping[str, Array]) -> None:
        self._engine, self._key = engine, key
        self._columns = {name: _Column(array) for name, array in arrays.items()}
        self._waiting: list[dict[str, NDArray[Any]]] = []
        self._size = 0
        self.growth = Growth(key, engine.url)

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        with self._engine._lock:
            self.growth.check()
            arrays, count = dtypes.as_rows(self._key, block, self._columns)
            if not count:
                return
            fitted = {name: dtypes.fit(arrays[name], c.dtype, name) for name, c in self._columns.items()}
            self._waiting.append(fitted)
            self._size += sum(rows.nbytes for rows in fitted.values())
            if self._size >= _WAITING:
                self.flush()

    def flush(self) -> None:
        with self._engine._lock:
            self.growth.check_standing()
            if self._waiting or self._engine._is_closed:
                self._engine._apply(self._write)
                self._engine._when_undone(self.growth.undo)

    def close(self, meta: Mapping[str, Any]) -> None:
        with self._engine._lock:
            self.growth.check_standing()
            if self.growth.closed:
                return
            self._engine._check_json(meta)

            def end(change: Change) -> None:
                self._write(change)
                change.merge(self._key, meta)
                change.undo.append(self._reopen)

            self._engine._apply(end)
            self.growth.closed = True
            self._engine._when_undone(self.growth.undo)

    def _reopen(self) -> None:
        self.growth.closed = False

    def _write(self, change: Change) -> None:
        own = change.find(self._key)
        if own is None:
            raise self.growth.gone()
        if {n: c.array for n, c in self._columns.items()} != own.arrays:  # they have numbers of their own
            raise self.growth.replaced()
        before = self._columns, self._waiting, self._size
        change.undo.append(lambda: self._restore(*before))
        self._columns, waiting = {name: c.copy() for name, c in self._columns.items()}, self._waiting
        self._waiting, self._size = [], 0
        for name, column in self._columns.items() if waiting else ():
            # with the type named: else numpy turns big-endian rows into native ones
            column.add(change, np.concatenate([rows[name] for rows in waiting], dtype=column.dtype))
        change.describe(own, {name: column.array for name, column in self._columns.items()})

    def _restore(
        self, columns: dict[str, _Column], waiting: list[dict[str, NDArray[Any]]], size: int
    ) -> None:
        self._columns, self._waiting, self._size = columns, [*waiting, *self._waiting], size
