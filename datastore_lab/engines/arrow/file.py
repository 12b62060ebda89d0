"""Reading one Arrow file, also while it grows and after its writer was killed.

The file format is the stream format after 8 bytes of magic, with an index (the footer) at its end. Without
a footer the messages are followed from byte 8 on, as far as they are whole.
"""

from __future__ import annotations

import bisect
import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from datastore_lab import dtypes, media
from datastore_lab.engines.arrow import types
from datastore_lab.errors import Corrupt, Foreign, NotFound
from datastore_lab.records import (
    ARRAY_ATTRIBUTES,
    ARRAYS,
    ArrayInfo,
    Selection,
    Stat,
    normalise_selection,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

MAGIC = b"ARROW1"
KIND, KEY, META, CHECKSUMS = b"lab_kind", b"lab_key", b"lab_meta", b"lab_xxh3"
REFUSED = "lab_refused"
_LONGEST_SCHEMA = 65_536
"""Bytes up to which a file without a readable schema counts as one whose writing had just begun."""


class Unfinished(Corrupt):
    """The writer was killed before it had written the schema: there is no row to lose."""


class ArrowFile:
    """The whole batches of a file, read through a memory map.

    Raises
    ------
    Foreign
        If it is not an Arrow file.
    Corrupt
        If it is one, and damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._size = -1
        self._batches: list[Any] = []
        self._starts = [0]
        self._offset = 0
        self._closing: dict[bytes, bytes] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what was appended since."""
        size = os.path.getsize(self.path)  # noqa: PTH202
        if size == self._size:
            return
        with open(self.path, "rb") as file:  # noqa: PTH123
            head = file.read(8)
            file.seek(max(0, size - 6))
            tail = file.read(6)
        if MAGIC.startswith(head[:6]) and size < 16:
            raise Unfinished(f"{self.path!r} ends before its schema: its writer was stopped", key=self.path)
        if not head.startswith(MAGIC):
            raise Foreign(f"{self.path!r} is no Arrow file (in IPC file format, or feather)", key=self.path)
        try:
            with pa.memory_map(self.path) as source:
                buffer = source.read_buffer(size)
            if tail == MAGIC and size > 16:
                self._read_finished(buffer)
            else:
                self._read_growing(buffer)
        except Corrupt:
            raise
        except (pa.ArrowException, OSError, EOFError) as error:
            raise Corrupt(f"{self.path!r} is a damaged Arrow file: {error}", key=self.path) from error
        self._size = size

    def _read_finished(self, buffer: Any) -> None:
        reader = pa.ipc.open_file(buffer)
        self.schema = reader.schema
        self._batches, self._starts = [], [0]
        for index in range(reader.num_record_batches):
            batch, extra = reader.get_batch_with_custom_metadata(index)
            self._add(batch)
            if extra is not None:
                self._closing = dict(extra.items())

    def _read_growing(self, buffer: Any) -> None:
        source = pa.BufferReader(buffer)
        if not self._offset:
            source.seek(8)
            try:
                self.schema = pa.ipc.read_schema(source)
            except (pa.ArrowException, OSError, EOFError) as error:
                if buffer.size < _LONGEST_SCHEMA:
                    raise Unfinished(f"{self.path!r} has no whole schema: {error}", key=self.path) from error
                raise
            self._offset = source.tell()
        while True:
            source.seek(self._offset)
            try:
                message = pa.ipc.read_message(source)
                batch = pa.ipc.read_record_batch(message, self.schema)
            except (pa.ArrowException, OSError, EOFError):
                return  # the end, or a tail that its writer had no time to finish
            self._add(batch)
            self._offset = source.tell()

    def _add(self, batch: Any) -> None:
        self._batches.append(types.checked(batch, self.path))
        self._starts.append(self._starts[-1] + batch.num_rows)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._starts[-1]

    @property
    def size(self) -> int:
        """Bytes of the file when it was last looked at."""
        return self._size

    @property
    def key(self) -> Key:
        """Where its record lives: the root for a file of another program."""
        stored = (self.schema.metadata or {}).get(KEY)
        return tuple(media.from_json(stored)) if stored else ()

    def stat(self) -> Stat:
        """Describe the record."""
        metadata = self.schema.metadata or {}
        kind = metadata.get(KIND, ARRAYS.encode()).decode()
        arrays, attributes, refused = {}, {}, []
        for field in self.schema:
            try:
                dtype, shape, dims, extra = types.describe(field)
            except Foreign:
                refused.append(field.name)
                continue
            nbytes = self.rows * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            chunks = self._chunks(shape)
            arrays[field.name] = ArrayInfo(dtypes.name(dtype), (self.rows, *shape), dims, nbytes, chunks)
            if extra:
                attributes[field.name] = extra
        return Stat(kind, arrays, self._meta(metadata, attributes, refused))

    def _meta(self, metadata: Any, attributes: dict[str, Any], refused: list[str]) -> dict[str, Any]:
        ours = KIND in metadata
        meta = media.from_json(metadata[META]) if ours else _people(metadata)
        meta |= media.from_json(self._closing[META]) if META in self._closing else {}
        if attributes or ARRAY_ATTRIBUTES in meta:
            meta[ARRAY_ATTRIBUTES] = {**meta.get(ARRAY_ATTRIBUTES, {}), **attributes}
        if refused:
            meta[REFUSED] = refused
        return dict(meta)

    def _chunks(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        largest = max((batch.num_rows for batch in self._batches), default=0)
        return (largest, *shape) if 0 < largest < self.rows else None

    def checksums(self) -> dict[str, str]:
        """Give the checksum of each array, of a file that was closed."""
        return dict(media.from_json(self._closing.get(CHECKSUMS, b"{}")))

    def column(self, name: str, batch: Any) -> NDArray[Any]:
        """Give one array's rows in a batch, as a view."""
        index = self.schema.get_field_index(name)
        return types.from_column(batch.column(index), self.schema.field(index))

    def batches(self) -> list[Any]:
        """Give the batches, in order."""
        return list(self._batches)

    def read(self, name: str, selection: Selection) -> NDArray[Any]:
        """Copy a part of an array, touching only the batches that hold it."""
        index = self.schema.get_field_index(name)
        if index < 0:
            known = self.schema.names
            why = f"{known.count(name)} columns of this name" if name in known else f"only {sorted(known)}"
            raise NotFound(f"{self.path!r} has {why}, so {name!r} can't be read", key=self.key)
        dtype, shape, _dims, _attributes = types.describe(self.schema.field(index))
        rows, *inner = normalise_selection(selection, (self.rows, *shape))
        if isinstance(rows, int):
            batch = bisect.bisect_right(self._starts, rows) - 1
            column = self.column(name, self._batches[batch])
            # the ellipsis keeps an array, with its byte order, where numpy would give a scalar
            return np.array(column[(rows - self._starts[batch], *inner, ...)], dtype=dtype)
        wanted = range(rows.start, -1 if rows.stop is None else rows.stop, rows.step)
        ascending = wanted if wanted.step > 0 else wanted[::-1]
        parts = [
            self.column(name, self._batches[batch])[part][(slice(None), *inner, ...)]
            for batch, part in self._parts(ascending)
        ]
        empty = np.empty((0, *shape), dtype)[(slice(None), *inner, ...)]
        joined = np.concatenate(parts) if parts else empty
        return np.array(joined[:: 1 if wanted.step > 0 else -1], dtype=dtype, order="C")

    def _parts(self, wanted: range) -> Any:
        """Yield (batch, slice within it) for the rows of an ascending range."""
        if not wanted:
            return
        first = bisect.bisect_right(self._starts, wanted[0]) - 1
        for batch, (start, stop) in enumerate(itertools.pairwise(self._starts)):
            if batch < first or start > wanted[-1]:
                continue
            skipped = max(0, -(-(start - wanted.start) // wanted.step))
            begin = wanted.start + skipped * wanted.step - start
            end = min(stop, wanted[-1] + 1) - start
            if begin < end:
                yield batch, slice(begin, end, wanted.step)


def _people(metadata: Any) -> dict[str, Any]:
    """Give the metadata of another program's file, as text where it is text."""
    found = {}
    for key, value in metadata.items():
        if not key.startswith((b"ARROW:", b"pandas")):
            found[key.decode(errors="replace")] = value.decode(errors="replace")
    return found
