"""Reading a table of text with a sidecar: only the stretches of about 1 MB that hold the rows are parsed."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.errors import Corrupt, NotFound
from datastore_lab.integrity import BLOCK, block_sum
from datastore_lab.records import Selection, Stat
from datastore_lab.streams import disk, parts
from datastore_lab.streams.ipc.read import Unfinished
from datastore_lab.streams.text import cells, sidecar
from datastore_lab.streams.text.lines import parse, stretches
from datastore_lab.streams.text.sidecar import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class TextFile:
    """One stream in a table of text.

    Raises
    ------
    Corrupt
        If the sidecar is not as it was written; `Unfinished` if its table was hardly begun.
    """

    def __init__(self, path: str, *, trusting: bool = False) -> None:
        self.path = path
        self.trusting = trusting
        self._seen = _state(path)
        self._size = _size(path)
        self._about = sidecar.load(path, trusting=trusting)
        self.key, self.layout = self._about.key, self._about.layout
        if self._about.size < self._about.pieces[0][1] and not self._about.closed:  # no header yet
            raise Unfinished(f"{path!r} has not been begun: its writer was stopped", key=path)
        if trusting:
            self._count_again()
        self._starts = [*(row for row, _byte in self._about.pieces), self._rows]
        self._bytes = [*(byte for _row, byte in self._about.pieces), self._about.size]
        self._columns: dict[str, range] = {}
        first = 0
        for name, info in self._about.stat.arrays.items():
            width = math.prod(info.shape[1:])
            self._columns[name] = range(first, first + width)
            first += width
        self._width = first

    @property
    def _rows(self) -> int:
        return next((info.shape[0] for info in self._about.stat.arrays.values()), 0)

    @property
    def closed(self) -> bool:
        """Whether its writer has ended it."""
        return self._about.closed

    def _count_again(self) -> None:
        """Take the table as it is now."""
        stat, size = self._about.stat, self._size
        width = sum(math.prod(info.shape[1:]) for info in stat.arrays.values())
        pieces, row = [], -1  # (the first line is the header)
        for start, stop in stretches(self.path, 0, size):
            pieces.append((max(row, 0), start))
            row += len(parse(disk.read(self.path, start, stop), width, [0], self.path)[0])
        first = len(",".join(map(quoted, sidecar.check_columns(stat))).encode()) + 1
        if pieces:
            pieces[0] = (0, min(first, size))
        infos = {
            name: info._replace(shape=(max(row, 0), *info.shape[1:])) for name, info in stat.arrays.items()
        }
        self._about = self._about._replace(
            stat=stat._replace(arrays=infos), size=size, pieces=pieces, sums=[]
        )

    def reseal(self, *, durable: bool) -> None:
        """Write the sidecar anew, for the table as far as it counts, and say that it is finished."""
        for name in self._columns:
            for start in range(0, self._rows, 1 << 16):
                self.read(name, (slice(start, start + (1 << 16)),))
        self.cut()
        spans = range(0, self._about.size, BLOCK)
        sums = [block_sum(self._checked(at, min(at + BLOCK, self._about.size))) for at in spans]
        sidecar.save(self.path, self._about._replace(sums=sums, closed=True), durable=durable)

    def refresh(self) -> bool:
        """Say whether the sidecar is still the same."""
        return _state(self.path) == self._seen

    def stat(self) -> Stat:
        """Describe the record."""
        stat = self._about.stat
        largest = max(
            (stop - start for start, stop in zip(self._starts, self._starts[1:], strict=False)), default=0
        )
        arrays = {
            name: info._replace(chunks=(largest, *info.shape[1:]) if 0 < largest < self._rows else None)
            for name, info in stat.arrays.items()
        }
        return Stat(stat.kind, arrays, media.from_json(media.to_json(dict(stat.meta))))

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of an array, parsing only the stretches that hold it."""
        if name not in self._columns:
            raise NotFound(f"{self.path!r} has only {sorted(self._columns)}, no {name!r}", key=self.key)
        info = self._about.stat.arrays[name]
        dtype = dtypes.parse(info.dtype)
        return parts.pick(
            self._starts,
            info.shape,
            dtype,
            selection,
            lambda piece, start, stop: self._piece(name, piece, dtype, info.shape[1:])[start:stop],
        )

    def _piece(self, name: str, piece: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        rows = self._starts[piece + 1] - self._starts[piece]
        raw = self._checked(self._bytes[piece], self._bytes[piece + 1])
        columns = parse(raw, self._width, list(self._columns[name]), self.path)
        out = np.empty((rows, len(columns)), dtype)
        for index, column in enumerate(columns):
            if len(column) != rows:
                raise Corrupt(f"{self.path!r} has {len(column)} rows where {rows} should be", key=self.path)
            out[:, index] = cells.read(column, dtype)
        return out.reshape(rows, *shape)

    def _checked(self, start: int, stop: int) -> bytes | memoryview:
        if self.trusting:
            return disk.read(self.path, start, stop)
        return disk.read_checked(self.path, start, stop, self._about.sums, (0, self._about.size))

    def cut(self) -> None:
        """Drop what follows the rows that count."""
        if self._size > self._about.size:
            os.truncate(self.path, self._about.size)

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield what is not as it was written."""
        bad: dict[str, str] = {}
        for start in range(0, self._about.size, BLOCK):
            try:
                self._checked(start, min(start + BLOCK, self._about.size))
            except Corrupt as error:  # (a line has something of every array)
                bad |= dict.fromkeys(self._columns, error.message)
        yield from ((name, what, False) for name, what in bad.items())
        if self.closed and _size(self.path) > self._about.size:
            yield None, f"lines were added to {self.path!r} after it was closed", False

    def loose_end(self) -> str | None:
        """Say what its writer had no time to finish."""
        return None if self.closed else "its writer was stopped before it was closed"


def _state(path: str) -> tuple[int, int, int]:
    found = os.stat(sidecar.place(path))  # noqa: PTH116
    return found.st_ino, found.st_size, found.st_mtime_ns


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)  # noqa: PTH202
    except FileNotFoundError:
        return 0
