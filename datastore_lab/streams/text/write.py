"""Appending to one table of text: rows first, synced; then the sidecar that says that they count."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from datastore_lab.integrity import BLOCK, RunningSums
from datastore_lab.streams import disk
from datastore_lab.streams.columns import text
from datastore_lab.streams.names import MEND
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
        self._rows = self._at = 0
        self._pieces = [(0, len(header))]
        self._sums = RunningSums()
        self._meta: dict[str, Any] = dict(spec.meta)
        if after is None:
            self._create(header)
        else:
            self._go_on(after)

    def _create(self, header: bytes) -> None:
        """Begin with a sidecar of nothing: without one a table would be taken for that of another program."""
        self._said = self._sidecar(closed=False)
        self._handle = -1
        disk.check_free(self._path)
        try:
            if not self._path.endswith(MEND):  # (there it would count at once)
                with disk.typed(self._path, "can't be begun"):
                    save(self._path, self._said, durable=self._durable)
            self._handle = disk.create(self._path)
            self._write(header)
            with disk.typed(self._path, "can't be begun"):
                self._sync()
        except BaseException:
            if self._handle >= 0:
                self._release_file()
            for name in (self._path, self._path + SIDECAR):
                with contextlib.suppress(OSError):  # (a beginning without rows is no stream for anybody)
                    os.unlink(name)  # noqa: PTH108
            raise

    def _go_on(self, after: Sidecar) -> None:
        self._handle = os.open(self._path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            self._back_to(after)
        except BaseException:
            self._release_file()
            raise

    def _back_to(self, said: Sidecar) -> None:
        """Stand where a sidecar says."""
        last = said.size - said.size % BLOCK
        end = disk.read_checked(self._path, last, said.size, said.sums, (0, said.size))
        self._said = said
        self._rows = next(info.shape[0] for info in said.stat.arrays.values())
        self._at = said.size
        self._pieces = list(said.pieces)
        self._sums = RunningSums(said.sums[: said.size // BLOCK], end)

    def forget(self) -> None:
        """Drop the rows that were not flushed."""
        with self._lock:
            self._stage, self._count = {}, 0
            self._let_out()
            self._back_to(self._said)

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
        self._hold(view)
        self._sums.add(view)
        self._at += len(view)

    def _put(self, rows: Rows) -> None:
        columns = [cells.write(column) for array in rows.values() for column in flat(array)]
        count = len(columns[0])
        if not count:
            return
        raw, offsets = as_lines(columns)
        self._index(offsets)
        self._write(raw)
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
        disk.check_there(self._handle, self._path)
        if self._held:
            self._write_out()
            self._say(closed=False)

    def _write_out(self) -> None:
        """Make what is held durable, and nothing behind it: no sidecar counts it yet."""
        at = self._said.size
        for raw in self._held:
            at = disk.write_at(self._handle, raw, at)
        if os.fstat(self._handle).st_size > at:
            os.ftruncate(self._handle, at)
        if self._durable:
            os.fsync(self._handle)

    def _sidecar(self, *, closed: bool) -> Sidecar:
        infos = {
            name: info._replace(shape=(self._rows, *info.shape[1:]))
            for name, info in self.spec.arrays.items()
        }
        stat = self.spec._replace(arrays=infos, meta=self._meta)
        return Sidecar(self.key, stat, self._at, list(self._pieces), self._sums.sums(), closed)

    def _say(self, *, closed: bool) -> None:
        made = self._sidecar(closed=closed)
        self._ahead = True
        save(self._path, made, durable=self._durable)
        self._ahead, self._said = False, made
        self._let_out()

    def _undo(self) -> None:
        save(self._path, self._said, durable=self._durable)

    def _end(self, meta: Mapping[str, Any]) -> None:
        disk.check_there(self._handle, self._path)
        self._write_out()
        self._meta |= meta
        self._say(closed=True)
        self._release_file()

    def _release_file(self) -> None:
        handle, self._handle = self._handle, -1
        os.close(handle)

    def _let_go(self) -> None:
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):  # (readers ignore what was not acknowledged)
            if self._ahead:
                self._undo()
            os.ftruncate(self._handle, self._said.size)
        self._release_file()


def as_lines(columns: list[Any]) -> tuple[memoryview, Any]:
    r"""Join columns of Arrow text to the bytes of lines; also where each of them begins, and the last ends.

    Examples
    --------
    >>> import numpy as np
    >>> raw, offsets = as_lines([cells.write(np.arange(2)), cells.write(np.array([0.5, np.nan]))])
    >>> bytes(raw), offsets.tolist()
    (b'0,0.5\n1,nan\n', [0, 6, 12])
    """
    lines = pc.binary_join_element_wise(*columns, text(",")) if len(columns) > 1 else columns[0]
    lines = pc.binary_join_element_wise(lines, text(""), text("\n"))
    lines = lines.combine_chunks() if hasattr(lines, "combine_chunks") else lines
    offsets = np.frombuffer(lines.buffers()[1], "<i4", len(lines) + 1)
    return memoryview(lines.buffers()[2])[: int(offsets[-1])], offsets


def flat(array: Any) -> list[Any]:
    """Give the columns of an array, one per element of a row."""
    return list(array.reshape(len(array), -1).T) if array.ndim > 1 else [array]
