"""Reading one Arrow file of this package, also while it grows and after its writer was killed.

The file is followed message by message from byte 8 on; the index at its end is for other programs. No byte
is handed to Arrow, or taken for a value, before its sum was checked.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.ipc

from datastore_lab import dtypes, media
from datastore_lab.errors import Corrupt, LabError, NotFound
from datastore_lab.integrity import BLOCK, VERSION, block_sum, check_layout
from datastore_lab.records import ARRAY_ATTRIBUTES, ArrayInfo, Selection, Stat
from datastore_lab.streams import columns, disk, parts
from datastore_lab.streams.ipc import head
from datastore_lab.streams.ipc.write import KEY, KIND, META

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key


class Unfinished(Corrupt):
    """The writer was killed before it had written the schema: there is no row to lose."""


class _Batch(NamedTuple):
    at: int  # of the body
    body: int
    rows: int
    buffers: tuple[tuple[int, int], ...]
    sums: bytes


class IpcFile:
    """The whole batches of a file.

    Parameters
    ----------
    path : str

    Raises
    ------
    Corrupt
        If something is not as it was written; `Unfinished` if it had hardly been begun.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.trusting = False
        self._batches: list[_Batch] = []
        self._starts = [0]
        self._at = 0
        self._number = 0
        self._closing: dict[str, bytes] | None = None
        self._seen: tuple[int, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Take in what was appended since; False if it is another file now."""
        found = os.stat(self.path)  # noqa: PTH116
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._seen and (state[0] != self._seen[0] or state[1] < self._at):
            return False
        if state != self._seen:
            self._follow(found.st_size)
            self._seen = state
        return True

    def _follow(self, size: int) -> None:
        if not self._number:
            self._begin(size)
        tail, first = disk.read(self.path, max(0, size - 16), size), self._first()
        while self._closing is None and self._take(self._at, size):
            first = self._first()  # (before the batch is looked for: it may be put over the mark meanwhile)
        if self._closing is not None or _marked(first, self._at):
            return
        if self._torn_apart(size, tail):
            raise Corrupt(
                f"{self.path!r} is damaged at byte {self._at}: what follows there is not as it was written. "
                f"The {self._starts[-1]} rows before it can be had with repair(accept=True)",
                key=self.path,
            )

    def _first(self) -> bytes:
        return disk.read(self.path, self._at, self._at + head.MARK)

    def _begin(self, size: int) -> None:
        start = disk.read(self.path, 0, 8)
        length = head.length_of(disk.read(self.path, 8, 16))
        self._at = 8 + length
        if start == head.MAGIC and length and self._take(self._at, size):
            self._read_schema(disk.read(self.path, 8, 8 + length))
            return
        tail = disk.read(self.path, max(0, size - 16), size)
        self._at = 0
        if self._torn_apart(size, tail):
            raise Corrupt(
                f"{self.path!r} is damaged: its beginning (schema or first batch) is not as it was written",
                key=self.path,
            )
        raise Unfinished(f"{self.path!r} ends before its schema: its writer was stopped", key=self.path)

    def _read_schema(self, raw: bytes) -> None:
        try:
            self.schema = pa.ipc.read_schema(pa.py_buffer(raw))
            self.metadata = dict(self.schema.metadata or {})
            self.layout = int(self.metadata[VERSION.encode()])
            check_layout(self.layout, self.path)
            self.key: Key = tuple(media.from_json(self.metadata[KEY]))
            described = [columns.describe(field) for field in self.schema]
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, LabError):
                raise
            raise Corrupt(f"{self.path!r} has no schema that can be read: {error}", key=self.path) from error
        self._columns = dict(zip(self.schema.names, described, strict=True))

    def _take(self, at: int, size: int) -> bool:
        """Take in the batch at a place, if a whole one with the right sum and number is there."""
        raw = disk.read(self.path, at, min(size, at + 16))
        length = head.length_of(raw)
        if not length or at + length > size:
            return False
        raw = disk.read(self.path, at, at + length)
        found = head.parse(raw)
        if found is None or found.kind != head.BATCH or at + found.size + found.body > size:
            return False
        before = b"" if self._number else disk.read(self.path, 0, at)
        if not _signed(raw, before, found, self._number):
            return False
        sums = head.value(raw, found, head.SUMS) or b""
        self._batches.append(_Batch(at + found.size, found.body, found.rows, found.buffers, sums))
        self._starts.append(self._starts[-1] + found.rows)
        if head.META in found.extra:
            self._closing = {name: head.value(raw, found, name) or b"" for name in (head.META, head.TAIL)}
        self._at, self._number = at + found.size + found.body, self._number + 1
        return True

    def _torn_apart(self, size: int, tail: bytes) -> bool:
        """Tell damage from an end that the writer had no time to finish."""
        if tail.endswith(head.MAGIC[:6]) and size > 64:
            return True
        acknowledged = head.marked(tail, size)
        return self._goes_on(size) if acknowledged is None else self._at < acknowledged

    def _goes_on(self, size: int) -> bool:
        """Whether a mark, or a whole batch with a later number, follows somewhere."""
        step, start = 1 << 24, self._at + (-self._at) % 8
        for low in range(start, size, step):
            raw = disk.read(self.path, low, min(size, low + step + head.LONGEST // 16))
            if head.marks(raw, low):
                return True
            for at in head.later(raw, 0):
                found = head.parse(memoryview(raw)[at:])
                if found is None or head.NUMBER not in found.extra or head.SUM not in found.extra:
                    continue
                number = _number(memoryview(raw)[at:], found)
                if number > self._number and _signed(memoryview(raw)[at:], b"", found, number):
                    return True
        return False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._starts[-1]

    @property
    def closed(self) -> bool:
        """Whether its writer has ended it."""
        return self._closing is not None

    def stat(self) -> Stat:
        """Describe the record."""
        attributes, arrays = {}, {}
        largest = max((batch.rows for batch in self._batches), default=0)
        for name, (dtype, shape, dims, extra) in self._columns.items():
            chunks = (largest, *shape) if 0 < largest < self.rows else None
            arrays[name] = info(dtype, (self.rows, *shape), dims, chunks)
            if extra:
                attributes[name] = extra
        meta = dict(media.from_json(self.metadata[META]))
        if self._closing is not None:
            meta |= media.from_json(self._closing[head.META])
        if attributes or ARRAY_ATTRIBUTES in meta:
            meta[ARRAY_ATTRIBUTES] = {**meta.get(ARRAY_ATTRIBUTES, {}), **attributes}
        return Stat(self.metadata[KIND].decode(), arrays, meta)

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of an array, touching only the blocks of those batches that hold it."""
        if name not in self._columns:
            raise NotFound(f"{self.path!r} has only {sorted(self._columns)}, no {name!r}", key=self.key)
        dtype, shape, _dims, _attributes = self._columns[name]
        index = self.schema.get_field_index(name)
        return parts.pick(
            self._starts,
            (self.rows, *shape),
            dtype,
            selection,
            lambda piece, start, stop: self.column(index, piece, start, stop),
        )

    def column(self, index: int, piece: int, start: int, stop: int) -> NDArray[Any]:
        """Give rows of one column of one batch."""
        batch, field = self._batches[piece], self.schema.field(index)
        first = sum(columns.buffers(self.schema.field(before).type) for before in range(index))
        places = batch.buffers[first : first + columns.buffers(field.type)]
        with self._readable(field.name):
            made = columns.rebuild(
                field.type, batch.rows, start, stop, places, lambda a, b: self._bytes(batch, a, b)
            )
        return columns.from_column(made, field)

    def batches(self) -> Iterator[Any]:
        """Read one batch with rows after the other, each once, as a record batch of Arrow."""
        for batch in self._batches:
            if batch.rows:
                yield pa.RecordBatch.from_arrays(self._whole(batch), schema=self.schema)

    def _whole(self, batch: _Batch) -> list[Any]:
        raw, places = self._bytes(batch, 0, batch.body), iter(batch.buffers)
        made = []
        for field in self.schema:
            own = tuple(itertools.islice(places, columns.buffers(field.type)))
            with self._readable(field.name):
                made.append(
                    columns.rebuild(field.type, batch.rows, 0, batch.rows, own, lambda a, b: raw[a:b])
                )
        return made

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, ValueError, IndexError) as error:
            if isinstance(error, LabError):
                raise
            raise Corrupt(f"{name!r} in {self.path!r} is damaged: {error}", key=self.key) from error

    def _bytes(self, batch: _Batch, start: int, stop: int) -> memoryview:
        """Read a range of a batch's body, having checked the blocks that it touches."""
        if self.trusting:
            return memoryview(disk.read(self.path, batch.at + start, batch.at + stop))
        sums = [int(batch.sums[at : at + 16], 16) for at in range(0, len(batch.sums), 16)]
        return disk.read_checked(self.path, start, stop, sums, (batch.at, batch.at + batch.body))

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield what is not as it was written, and whether it can be mended without guessing."""
        bad: dict[str | None, str] = {}
        for batch in self._batches:
            for start in range(0, batch.body, BLOCK):
                try:
                    self._bytes(batch, start, min(start + BLOCK, batch.body))
                except Corrupt as error:
                    bad |= dict.fromkeys(self._names_at(batch, start), error.message)
        yield from ((name, what, False) for name, what in bad.items())
        if self._cut():
            yield None, f"{self.path!r} was cut after byte {self._at}: rows that it had may be missing", False
        if self._closing is not None and not self._ends_well():
            yield None, f"the index at the end of {self.path!r} is not as it was written", True

    def _names_at(self, batch: _Batch, start: int) -> list[str | None]:
        """Name the arrays that lie in a block."""
        found: list[str | None] = []
        first = 0
        for field in self.schema:
            places = batch.buffers[first : first + columns.buffers(field.type)]
            first += len(places)
            if any(at < start + BLOCK and at + length > start for at, length in places if length):
                found.append(field.name)
        return found or [None]

    def _ends_well(self) -> bool:
        """Whether the end is whole, or was never finished."""
        text = (self._closing or {}).get(head.TAIL, b"")
        length, expected = int(text[:16], 16), int(text[16:], 16)
        tail = disk.read(self.path, self._at, self._at + length + 1)
        return len(tail) < length or (len(tail) == length and block_sum(tail) == expected)

    def _cut(self) -> bool:
        """Whether the file ends within a batch that was finished once: no stopped writer leaves that."""
        size = os.path.getsize(self.path)  # noqa: PTH202
        if self._closing is not None or size <= self._at + head.MARK or _marked(self._first(), self._at):
            return False
        return disk.read(self.path, size - head.MARK, size) != head.premark(self._at)

    def loose_end(self) -> str | None:
        """Say what its writer had no time to finish."""
        if self._closing is None:
            return "its writer was stopped before it was closed"
        length = int(self._closing[head.TAIL][:16], 16)
        whole = os.path.getsize(self.path) >= self._at + length  # noqa: PTH202
        return None if whole else "its writer was stopped while the index was written"


def _marked(first: bytes, at: int) -> bool:
    """Whether a mark lies at a place, or its proof does, a batch having been put over it only in part."""
    return first[8:] == head.mark(at)[8:]


def _signed(raw: bytes | memoryview, before: bytes, found: head.Head, number: int) -> bool:
    if not {head.SUM, head.NUMBER, head.SUMS} <= found.extra.keys() or len(raw) < found.size:
        return False
    blocks = -(-found.body // BLOCK)
    return (
        _number(raw, found) == number
        and (head.value(raw, found, head.SUM) or b"").decode(errors="replace")
        == head.own_sum(raw, before, found)
        and len(head.value(raw, found, head.SUMS) or b"") >= 16 * blocks
        and not (found.nulls or found.compressed)
    )


def _number(raw: bytes | memoryview, found: head.Head) -> int:
    try:
        return int(head.value(raw, found, head.NUMBER) or b"-1", 16)
    except ValueError:
        return -1


def info(dtype: Any, shape: tuple[int, ...], dims: tuple[str, ...], chunks: Any) -> ArrayInfo:
    """Describe an array of a stream."""
    nbytes = math.prod(shape) * max(dtype.itemsize, 1)
    return ArrayInfo(dtypes.name(dtype), shape, dims, nbytes, chunks)
