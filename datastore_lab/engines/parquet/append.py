"""Records that grow: every flush adds a Parquet file, and small ones are joined as they get many."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes
from datastore_lab.engines.parquet import parts as parquet
from datastore_lab.engines.parquet.change import MAIN, no_rows
from datastore_lab.engines.parquet.doc import Doc, Table
from datastore_lab.errors import LabError, NotFound
from datastore_lab.records import Growth, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.parquet.checked import Part
    from datastore_lab.engines.parquet.columns import Column
    from datastore_lab.engines.parquet.engine import ParquetFolderEngine
    from datastore_lab.engines.parquet.tree import Parts
    from datastore_lab.keys import Key

_MANY = 16
_LARGE = 64 << 20
"""Parts of this size are not joined while rows come in: a flush must not take long."""

_LARGEST = 512 << 20
"""Records of up to this size are joined into one file when they are closed; larger ones by `compact`."""


class _State(NamedTuple):
    """How far a stream has got: what is to be put back if its commit fails."""

    waiting: tuple[dict[str, NDArray[Any]], ...]
    length: int
    number: int
    levels: tuple[int, ...]


class ParquetAppender:
    """A record of a Parquet folder that grows along axis 0 of all its arrays.

    Made by `ParquetFolderEngine.append`. A flush writes a new file ``record.<number>.parquet``; sixteen of a
    kind are joined into one, so that each row is written again a few times at most, and there are never many.
    """

    def __init__(self, engine: ParquetFolderEngine, key: Key, spec: Stat) -> None:
        self._engine, self._key = engine, key
        self._arrays = no_rows(spec)
        self._state = _State((), 0, 0, ())
        self.growth = Growth(key, engine.url)
        self.growth.mark = self._mark()

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        with self._engine._session.lock:
            self.growth.check()
            rows, count = dtypes.as_rows(self._key, block, self._arrays)
            if count:
                own = self._arrays.items()
                fitting = {name: dtypes.fit(rows[name], array.dtype, name) for name, array in own}
                self._state = self._state._replace(waiting=(*self._state.waiting, fitting))

    def flush(self) -> None:
        session = self._engine._session
        with session.lock:
            with session.change():
                self.growth.check_standing()
                self._stage()
            session.when_undone(self.growth.undo)

    def _stage(self) -> None:
        """Stage the rows that wait."""
        blocks = self._state.waiting
        if not blocks:
            return
        parts, doc = self._own()
        self._engine._session.undo.append(self._restore(self._state))
        arrays = {
            # with the type named: else numpy turns big-endian rows into native ones
            name: np.concatenate([block[name] for block in blocks], dtype=own.dtype)
            for name, own in self._arrays.items()
        }
        count = sum(len(next(iter(block.values()))) for block in blocks)
        self._state = self._state._replace(waiting=(), length=self._state.length + count)
        self._engine._changes.put_doc(parts, self._grown(parts, doc, arrays, count))

    def _restore(self, state: _State) -> Any:
        def restore() -> None:
            self._state = state._replace(waiting=(*state.waiting, *self._state.waiting))
            self.growth.closed = False

        return restore

    def _own(self) -> tuple[Parts, Doc]:
        """Find the record, and make sure that it is still the one that grows here."""
        engine = self._engine
        self.growth.check_place(self._mark())
        node = engine._tree.node(self._key)
        if {array.column.shape[0] for array in node.doc.arrays.values()} - {self._state.length}:
            raise self.growth.replaced()
        return node.parts, node.doc

    def _grown(self, parts: Parts, doc: Doc, arrays: Mapping[str, NDArray[Any]], count: int) -> Doc:
        """Stage new rows as a further part; gives the description of the record with them."""
        own = {
            name: array._replace(column=_longer(array.column, array.column.shape[0] + count))
            for name, array in doc.arrays.items()
        }
        doc = doc._replace(arrays=own)
        columns = {name: _longer(array.column, count) for name, array in own.items() if array.table}
        if not columns:
            return doc
        files = (*doc.tables[MAIN].parts, self._write(parts, arrays, columns))
        self._state = self._state._replace(number=self._state.number + 1, levels=(*self._state.levels, 0))
        return doc._replace(tables={MAIN: Table(self._join_small(parts, files), 0)})

    def _write(self, parts: Parts, arrays: Mapping[str, NDArray[Any]], columns: Mapping[str, Column]) -> Part:
        log, name = self._engine._session.log, f"{MAIN}.{self._state.number:06}.parquet"
        path = log.new()
        part, _ = parquet.write_arrays(log, path, name, arrays, columns)
        self._engine._tree.overlay.put((*parts, name), path)
        return part

    def _join_small(self, parts: Parts, files: tuple[Part, ...]) -> tuple[Part, ...]:
        """Join the last parts as long as they are many of one kind."""
        levels = self._state.levels
        while len(levels) >= _MANY and len(set(levels[-_MANY:])) == 1:
            last = files[-_MANY:]
            joined = self._try_join(parts, last, last[0].name)
            if joined is None:
                break
            files, levels = (*files[:-_MANY], joined), (*levels[:-_MANY], levels[-1] + 1)
        self._state = self._state._replace(levels=levels)
        return files

    def _try_join(self, parts: Parts, files: tuple[Part, ...], name: str) -> Part | None:
        """Join parts unless they are large, or damaged: new rows are worth more than fewer files."""
        if sum(part.size for part in files) > _LARGE:
            return None
        try:
            return self._engine._changes.join(self._key, parts, files, name)
        except LabError:
            return None

    def close(self, meta: Mapping[str, Any]) -> None:
        session = self._engine._session
        with session.lock:
            self.growth.check_standing()
            if self.growth.closed:
                return
            with session.change():
                self.growth.check_place(self._mark())
                self._stage()
                self._engine.update(self._key, meta)
                session.undo.append(self._reopen)
                self._engine._join(self._key, _LARGEST)
            self.growth.closed = True
            session.when_undone(self.growth.undo)

    def _mark(self) -> str | None:
        with contextlib.suppress(NotFound):
            return self._engine._tree.node(self._key).doc.fingerprint()
        return None

    def _reopen(self) -> None:
        self.growth.closed = False


def _longer(column: Column, length: int) -> Column:
    return column._replace(shape=(length, *column.shape[1:]))
