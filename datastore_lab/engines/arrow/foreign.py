"""Arrow files of other programs, for reading."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.ipc

from datastore_lab.errors import Corrupt, Foreign, NotFound
from datastore_lab.records import ARRAY_ATTRIBUTES, ARRAYS, Selection, Stat
from datastore_lab.streams import columns, disk, limits, parts
from datastore_lab.streams.ipc import head
from datastore_lab.streams.ipc.read import info
from datastore_lab.streams.names import NotOurs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

REFUSED = "lab_refused"


class ForeignFile:
    """A whole file in Arrow's IPC format, at the root of its store.

    Raises
    ------
    Foreign
        If it is no Arrow file.
    Corrupt
        If it is one, and damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.key: Key = ()
        self.trusting = False
        found = os.stat(path)  # noqa: PTH116
        self._seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        raw = disk.read(path, 0, found.st_size)  # no map: a file that is cut would end the process
        if raw[:6] != head.MAGIC[:6]:
            raise NotOurs(f"{path!r} is no Arrow file (in IPC file format, or feather)", key=path)
        try:
            self._read(raw)
        except (pa.ArrowException, OSError, EOFError) as error:
            if isinstance(error, (Foreign, Corrupt)):
                raise
            raise Corrupt(f"{path!r} is a damaged Arrow file: {error}", key=path) from error

    def _read(self, raw: bytes) -> None:
        reader = pa.ipc.open_file(pa.py_buffer(raw))
        self.schema = reader.schema
        path = self.path
        limits.check_messages(raw, path)
        self._batches = [
            columns.checked(reader.get_batch(i), self.path) for i in range(reader.num_record_batches)
        ]
        self._starts = [0, *itertools.accumulate(batch.num_rows for batch in self._batches)]

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        found = os.stat(self.path)  # noqa: PTH116
        return (found.st_ino, found.st_size, found.st_mtime_ns) == self._seen

    def stat(self) -> Stat:
        """Describe what of it is arrays, and name what is not."""
        arrays, attributes, refused = {}, {}, []
        largest = max((batch.num_rows for batch in self._batches), default=0)
        rows = self._starts[-1]
        for field in self.schema:
            try:
                dtype, shape, dims, extra = columns.describe(field)
            except Foreign:
                refused.append(field.name)
                continue
            chunks = (largest, *shape) if 0 < largest < rows else None
            arrays[field.name] = info(dtype, (rows, *shape), dims, chunks)
            if extra:
                attributes[field.name] = extra
        meta: dict[str, Any] = people(self.schema.metadata or {})
        if attributes:
            meta[ARRAY_ATTRIBUTES] = attributes
        return Stat(ARRAYS, arrays, {**meta, REFUSED: refused} if refused else meta)

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of a column."""
        index = self.schema.get_field_index(name)
        if index < 0:
            known = self.schema.names
            why = f"{known.count(name)} columns of this name" if name in known else f"only {sorted(known)}"
            raise NotFound(f"{self.path!r} has {why}, so {name!r} can't be read", key=self.key)
        field = self.schema.field(index)
        dtype, shape, _dims, _attributes = columns.describe(field)

        def fetch(piece: int, start: int, stop: int) -> NDArray[Any]:
            return columns.from_column(self._batches[piece].column(index), field)[start:stop]

        return parts.pick(self._starts, (self._starts[-1], *shape), dtype, selection, fetch)

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Nothing can be said about files without sums, beyond that they can be read."""
        yield from ()

    def loose_end(self) -> str | None:
        """Nothing: files of other programs are left alone."""
        return None


def people(metadata: Any) -> dict[str, Any]:
    """Give the metadata of another program's file, as text where it is text."""
    found = {}
    for key, value in metadata.items():
        if not key.startswith((b"ARROW:", b"pandas")):
            found[key.decode(errors="replace")] = value.decode(errors="replace")
    return found
