"""Reading a Parquet file of this package: no byte reaches Arrow before its sum was checked."""

from __future__ import annotations

import io
import itertools
import os
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from datastore_lab import dtypes, media
from datastore_lab.engines.parquet_file import seal
from datastore_lab.engines.parquet_file.carry import unpack
from datastore_lab.engines.parquet_file.decode import decode, open_file
from datastore_lab.errors import Corrupt, LabError, NotFound
from datastore_lab.integrity import BLOCK, SEAL, SUMS, VERSION, check_layout, check_seal
from datastore_lab.records import ARRAY_ATTRIBUTES, ArrayInfo, Selection, Stat
from datastore_lab.streams import columns, disk, parts
from datastore_lab.streams.ipc.read import info as describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from datastore_lab.keys import Key

MAGIC = b"PAR1"
_OURS = re.compile(rb"lab_(layout|seal|arrays|sum\x18)")


def footer(path: str) -> tuple[bytes, int]:
    """Give the footer of a file with what follows it, and where it begins; no bytes if there is none."""
    size = os.path.getsize(path)  # noqa: PTH202
    tail = disk.read(path, max(0, size - 8), size)
    start = size - 8 - int.from_bytes(tail[:4], "little")
    whole = tail[4:] == MAGIC and start >= 4
    return (disk.read(path, start, size), start) if whole else (b"", size)


def is_ours(path: str) -> bool:
    """Whether this package made a file, by whatever of it is readable."""
    raw, size = footer(path)
    return _OURS.search(raw or disk.read(path, max(0, size - (1 << 20)), size)) is not None


class CheckedSource(io.RawIOBase):
    """The bytes of a file as Arrow reads them, each checked before.

    Parameters
    ----------
    path : str
    sums : list of int
        Of the blocks before the footer.
    tail : bytes
        The footer and what follows.
    start : int
        Where it begins.
    """

    def __init__(self, path: str, sums: list[int], tail: bytes, start: int) -> None:
        self._path, self._sums, self._tail, self._start = path, sums, tail, start
        self._at = 0
        self.trusting = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._start + len(self._tail))[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._start + len(self._tail)
        stop = end if size is None or size < 0 else min(self._at + size, end)
        raw = b""
        if self._at < min(stop, self._start):
            raw = bytes(self.checked(self._at, min(stop, self._start)))
        if stop > self._start:
            raw += self._tail[max(0, self._at - self._start) : stop - self._start]
        self._at = max(stop, self._at)
        return raw

    def checked(self, start: int, stop: int) -> bytes | memoryview:
        """Give bytes before the footer."""
        if self.trusting:
            return disk.read(self._path, start, stop)
        return disk.read_checked(self._path, start, stop, self._sums, (0, self._start))


class SealedFile:
    """One stream in a Parquet file.

    Raises
    ------
    Corrupt
        If its description is not as it was written.
    """

    def __init__(self, path: str, *, trusting: bool = False) -> None:
        self.path = path
        found = os.stat(path)  # noqa: PTH116
        self._seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        self._decoded: tuple[tuple[int, int], Any] | None = None
        raw, start = footer(path)
        place = seal.SUM_AT.search(raw)
        if not trusting and (place is None or place[1] != seal.footer_sum(raw, place.span(1))):
            raise Corrupt(
                f"{path!r} is damaged: the end of the file, which describes it, is not as it was written; "
                "restore it from a copy",
                key=path,
            )
        try:
            self._open(raw, start, trusting)
        except (pa.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
            if isinstance(error, LabError):
                raise
            raise Corrupt(f"{path!r} can't be read: {error}", key=path) from error

    def _open(self, raw: bytes, start: int, trusting: bool) -> None:
        metadata = _key_values(raw)
        self.layout = int(metadata[VERSION])
        check_layout(self.layout, self.path)
        self.key: Key = tuple(media.from_json(metadata[seal.KEY]))
        text = metadata[SUMS]
        self._sums = [int(text[at : at + 16], 16) for at in range(0, len(text), 16)]
        self._source = CheckedSource(self.path, self._sums, raw, start)
        self._source.trusting = trusting
        self._end = start
        self._parquet = open_file(pa.PythonFile(self._source, mode="r"))
        groups = self._parquet.metadata
        counts = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        self._starts = [0, *itertools.accumulate(counts)]
        self._stat = self._describe(metadata, max(counts, default=0), self._starts[-1])
        if not trusting:
            check_seal(self.key, self._stat, metadata[SEAL], self.path)
        attributes = self._stat.meta.get(ARRAY_ATTRIBUTES, {})
        self._fields = {
            name: columns.field(name, info, attributes.get(name, {}))
            for name, info in self._stat.arrays.items()
        }

    def _describe(self, metadata: dict[str, str], largest: int, rows: int) -> Stat:
        arrays: dict[str, ArrayInfo] = {}
        for name, found in media.from_json(metadata[seal.ARRAYS]).items():
            shape = (rows, *found["shape"][1:])
            chunks = (largest, *shape[1:]) if 0 < largest < shape[0] else None
            arrays[name] = describe(dtypes.parse(found["dtype"]), shape, tuple(found["dims"]), chunks)
        return Stat(metadata[seal.KIND], arrays, media.from_json(metadata[seal.META]))

    @property
    def trusting(self) -> bool:
        """Whether sums are compared."""
        return self._source.trusting

    @trusting.setter
    def trusting(self, trust: bool) -> None:
        self._source.trusting = trust

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        found = os.stat(self.path)  # noqa: PTH116
        return (found.st_ino, found.st_size, found.st_mtime_ns) == self._seen

    def stat(self) -> Stat:
        """Describe the record."""
        return self._stat._replace(meta=media.from_json(media.to_json(self._stat.meta)))

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of an array, touching only the row groups that hold it."""
        if name not in self._fields:
            raise NotFound(f"{self.path!r} has only {sorted(self._fields)}, no {name!r}", key=self.key)
        info, index = self._stat.arrays[name], list(self._fields).index(name)
        return parts.pick(
            self._starts,
            info.shape,
            dtypes.parse(info.dtype),
            selection,
            lambda piece, start, stop: self._column(name, index, piece)[start:stop],
        )

    def _column(self, name: str, index: int, piece: int) -> NDArray[Any]:
        """Decode one column of one row group; the last one is kept, for reading row by row."""
        if self._decoded is None or self._decoded[0] != (piece, index):
            field = self._fields[name]
            try:
                chunk = decode(self._parquet, piece, [index], self.path, self._seen[1])
                rows = columns.from_column(unpack(chunk, field.type), field)
            except (pa.ArrowException, OSError, ValueError) as error:
                if isinstance(error, LabError):
                    raise
                raise Corrupt(f"{name!r} in {self.path!r} is damaged: {error}", key=self.key) from error
            self._decoded = ((piece, index), rows)
        return self._decoded[1]

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield what is not as it was written."""
        bad: dict[str | None, str] = {}
        for start in range(0, self._end, BLOCK):
            try:
                self._source.checked(start, min(start + BLOCK, self._end))
            except Corrupt as error:
                bad |= dict.fromkeys(self._names_at(start), error.message)
        yield from ((name, what, False) for name, what in bad.items())

    def _names_at(self, start: int) -> list[str | None]:
        found: list[str | None] = []
        groups = self._parquet.metadata
        for group, (index, name) in itertools.product(range(groups.num_row_groups), enumerate(self._fields)):
            chunk = groups.row_group(group).column(index)
            first = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
            if first < start + BLOCK and first + chunk.total_compressed_size > start:
                found.append(name)
        return found or [None]

    def loose_end(self) -> str | None:
        """Nothing: a sealed file is finished."""
        return None


def _key_values(raw: bytes) -> dict[str, str]:
    """Read the metadata of a footer whose sum is right."""
    head = pa.BufferReader(MAGIC + raw)  # (all that is needed of the file to read its metadata)
    metadata = pq.read_metadata(head).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}
