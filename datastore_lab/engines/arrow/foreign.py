"""Arrow files of other programs, for reading."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from datastore_lab.engines.arrow import blocks
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, NotFound
from datastore_lab.records import ARRAY_ATTRIBUTES, ARRAYS, Selection, Stat
from datastore_lab.streams import columns, parts
from datastore_lab.streams.ipc.read import info

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

REFUSED = "lab_refused"


class ForeignFile:
    """A file or stream in Arrow's IPC format, at the root of its store.

    Only the batches that a selection needs are read, and of plain numbers and text only its rows; there is
    no memory map, since a file that is cut would end the process.

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
        self.trusting, self.layout = False, None
        found = os.stat(path)  # noqa: PTH116
        self._seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        try:
            self.schema, self._batches = blocks.find(path, found.st_size)
        except (pa.ArrowException, struct.error, OSError, ValueError) as error:
            if isinstance(error, LabError):
                raise
            raise self._damaged("its description", error) from error
        self._starts = [0, *itertools.accumulate(batch.head.rows for batch in self._batches)]
        self._last: tuple[tuple[int, int], Callable[[int, int], NDArray[Any]]] | None = None

    def _damaged(self, what: str, error: Exception) -> Corrupt:
        return Corrupt(
            f"{self.path!r} is a damaged Arrow file: {what} can't be read ({error}); restore it from a copy",
            key=self.path,
        )

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        found = os.stat(self.path)  # noqa: PTH116
        return (found.st_ino, found.st_size, found.st_mtime_ns) == self._seen

    def stat(self) -> Stat:
        """Describe what of it is arrays, and name what is not."""
        arrays, attributes, refused = {}, {}, []
        largest = max((batch.head.rows for batch in self._batches), default=0)
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

        try:
            return parts.pick(
                self._starts,
                (self._starts[-1], *shape),
                dtype,
                selection,
                lambda piece, start, stop: self._rows(index, piece, start, stop),
            )
        except MemoryError as error:
            raise EngineError(
                f"{name!r} of {self.path!r} has {self._starts[-1]} rows, for which there is no memory; read "
                "it in parts",
                key=self.path,
            ) from error

    def _rows(self, index: int, piece: int, start: int, stop: int) -> NDArray[Any]:
        """Read rows of a batch; what was unpacked last is kept, for reading row by row."""
        try:
            if self._last is None or self._last[0] != (piece, index):
                made = blocks.column(self.path, self.schema, index, self._batches[piece])
                self._last = (piece, index), made
            return self._last[1](start, stop)
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            if isinstance(error, LabError):
                raise
            raise self._damaged(repr(self.schema.names[index]), error) from error

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Read everything: there are no sums, but what can't be read is found."""
        for name in self.stat().arrays:
            index = self.schema.get_field_index(name)
            for piece, batch in enumerate(self._batches):
                try:
                    self._rows(index, piece, 0, batch.head.rows)
                except Corrupt as error:
                    yield name, error.message, False
                    break
                except Foreign:  # values that an array can't say are no damage
                    break

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
