"""Appending to one table of text: rows first, synced; then the sidecar that says that they count."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import xxhash

from datastore_lab.integrity import BLOCK
from datastore_lab.streams import disk
from datastore_lab.streams.columns import text
from datastore_lab.streams.rows import Rows, StreamAppender
from datastore_lab.streams.text import cells
from datastore_lab.streams.text.sidecar import SIDECAR, Sidecar, check_columns, quoted, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from datastore_lab.keys import Key
    from datastore_lab.records import Stat


class TextAppender(StreamAppender):
    """Writes rows as lines, and after each flush the sidecar.

    Parameters
    ----------
    path, key, spec, release
        As for `StreamAppender`.
    durable : bool
        Sync at each flush.
    after : Sidecar, optional
        Go on with the table that is there, after the rows that count.
    """

    def __init__(
        self,
        path: str,
        key: Key,
        spec: Stat,
        release: Callable[[], None],
        *,
        durable: bool = True,
        after: Sidecar | None = None,
    ) -> None:
        super().__init__(path, key, spec, release)
        header = ",".join(map(quoted, check_columns(spec))).encode() + b"\n"
        self._durable = durable
        self._rows = self._at = self._acknowledged = 0
        self._pieces = [(0, len(header))]
        self._sums: list[int] = []
        self._state = xxhash.xxh3_64()
        self._meta: dict[str, Any] = dict(spec.meta)
        if after is not None:
            self._go_on(after)
            return
        self._handle = disk.create(path)
        try:
            self._write(header)
            self._sync()
        except BaseException:
            self._release_file()
            for name in (path, path + SIDECAR):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)  # noqa: PTH108
            raise

    def _go_on(self, after: Sidecar) -> None:
        self._rows = next(info.shape[0] for info in after.stat.arrays.values())
        self._at = self._acknowledged = after.size
        self._pieces = list(after.pieces)
        self._sums = after.sums[: after.size // BLOCK]
        last = after.size - after.size % BLOCK
        self._state.update(disk.read_checked(self._path, last, after.size, after.sums, (0, after.size)))
        self._handle = os.open(self._path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        os.ftruncate(self._handle, after.size)

    @property
    def rows(self) -> int:
        """How many rows were put."""
        return self._rows

    def leave(self) -> None:
        """Let go of the table as it is: another one takes its place."""
        self.closed = True
        self._release_file()

    def _write(self, raw: Any) -> None:
        view = memoryview(raw).cast("B")
        disk.write_at(self._handle, view, self._at)
        while view:
            part = view[: BLOCK - self._at % BLOCK]
            self._state.update(part)
            self._at += len(part)
            if self._at % BLOCK == 0:
                self._sums.append(self._state.intdigest())
                self._state.reset()
            view = view[len(part) :]

    def _put(self, rows: Rows) -> None:
        columns = [cells.write(column) for array in rows.values() for column in flat(array)]
        count = len(columns[0])
        if not count:
            return
        lines = pc.binary_join_element_wise(*columns, text(",")) if len(columns) > 1 else columns[0]
        lines = pc.binary_join_element_wise(lines, text(""), text("\n"))
        lines = lines.combine_chunks() if hasattr(lines, "combine_chunks") else lines
        offsets = np.frombuffer(lines.buffers()[1], "<i4", count + 1)
        self._index(offsets)
        self._write(memoryview(lines.buffers()[2])[: int(offsets[-1])])
        self._rows += count

    def _index(self, offsets: Any) -> None:
        """Note where rows begin, every 1 MB."""
        starts = self._at + offsets[:-1].astype("i8")
        while True:
            row = int(np.searchsorted(starts, self._pieces[-1][1] + BLOCK))
            if row >= len(starts):
                return
            self._pieces.append((self._rows + row, int(starts[row])))

    def _sync(self) -> None:
        if self._durable:
            os.fsync(self._handle)
        self._say(closed=False)

    def _say(self, *, closed: bool) -> None:
        infos = {
            name: info._replace(shape=(self._rows, *info.shape[1:]))
            for name, info in self.spec.arrays.items()
        }
        stat = self.spec._replace(arrays=infos, meta=self._meta)
        last = [self._state.intdigest()] if self._at % BLOCK else []
        made = Sidecar(self.key, stat, self._at, self._pieces, [*self._sums, *last], closed)
        save(self._path, made, durable=self._durable)
        self._acknowledged = self._at

    def _end(self, meta: Mapping[str, Any]) -> None:
        if self._durable:
            os.fsync(self._handle)
        self._meta |= meta
        self._say(closed=True)
        self._release_file()

    def _release_file(self) -> None:
        handle, self._handle = self._handle, -1
        os.close(handle)

    def _abandon(self) -> None:
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):  # (readers ignore what was not acknowledged)
            os.ftruncate(self._handle, self._acknowledged)
        self._release_file()


def flat(array: Any) -> list[Any]:
    """Give the columns of an array, one per element of a row."""
    return list(array.reshape(len(array), -1).T) if array.ndim > 1 else [array]
