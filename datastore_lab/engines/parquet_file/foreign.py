"""Parquet files of other programs, for reading."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from datastore_lab.engines.parquet_file.decode import decode, open_file
from datastore_lab.engines.parquet_file.sealed import MAGIC
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, NotFound
from datastore_lab.records import ARRAY_ATTRIBUTES, ARRAYS, Selection, Stat
from datastore_lab.streams import columns, disk, limits, parts
from datastore_lab.streams.ipc.read import info as describe
from datastore_lab.streams.kinds import said
from datastore_lab.streams.names import NotOurs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from datastore_lab.keys import Key

REFUSED = "lab_refused"


class ForeignFile:
    """A table of another program, at the root of its store.

    Raises
    ------
    Foreign
        If it is no Parquet file.
    Corrupt
        If it is one, and damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.key: Key = ()
        self.trusting, self.layout = False, None
        found = os.stat(path)  # noqa: PTH116
        self._seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        ends = disk.read(path, 0, 4), disk.read(path, max(0, found.st_size - 4), found.st_size)
        if MAGIC not in ends:
            raise NotOurs(f"{path!r} is no Parquet file, but {said(path)}", key=path)
        try:
            self._parquet = open_file(path)
            groups = self._parquet.metadata
            counts = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
            self._schema = pa.schema([_plain(field) for field in self._parquet.schema_arrow])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Corrupt(
                f"{path!r} is a damaged Parquet file, or one that was cut: {error}; restore it from a copy",
                key=path,
            ) from error
        if min(counts, default=0) < 0:
            raise Corrupt(f"{path!r} has {counts} rows", key=path)
        self._starts = [0, *itertools.accumulate(counts)]
        widths = [_leaves(field.type) for field in self._parquet.schema_arrow]
        self._leaves = [0, *itertools.accumulate(widths)]

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        found = os.stat(self.path)  # noqa: PTH116
        return (found.st_ino, found.st_size, found.st_mtime_ns) == self._seen

    def stat(self) -> Stat:
        """Describe what of it is arrays, and name what is not."""
        arrays, attributes, refused = {}, {}, []
        rows = self._starts[-1]
        for field in self._schema:
            try:
                dtype, shape, dims, extra = columns.describe(field)
            except Foreign:
                refused.append(field.name)
                continue
            arrays[field.name] = describe(dtype, (rows, *shape), dims, None)
            if extra:
                attributes[field.name] = extra
        metadata = self._parquet.metadata.metadata or {}
        meta: dict[str, Any] = {
            key.decode(errors="replace"): value.decode(errors="replace")
            for key, value in metadata.items()
            if not key.startswith((b"ARROW:", b"pandas"))
        }
        if attributes:
            meta[ARRAY_ATTRIBUTES] = attributes
        return Stat(ARRAYS, arrays, {**meta, REFUSED: refused} if refused else meta)

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of a column, decoding only the row groups that hold it."""
        index = self._schema.get_field_index(name)
        if index < 0:
            raise NotFound(f"{self.path!r} has only {sorted(self._schema.names)}, no {name!r}", key=self.key)
        field = self._schema.field(index)
        dtype, shape, _dims, _attributes = columns.describe(field)
        shape = (self._starts[-1], *shape)
        try:
            return parts.pick(
                self._starts,
                shape,
                dtype,
                selection,
                lambda piece, start, stop: self._column(index, field, piece)[start:stop],
            )
        except MemoryError as error:
            raise EngineError(
                f"{name!r} of {self.path!r} says that it has the shape {shape}, for which there is no "
                "memory; read it in parts",
                key=self.path,
            ) from error

    def _column(self, index: int, field: Any, piece: int) -> NDArray[Any]:
        group = self._parquet.metadata.row_group(piece)
        width = max(columns.describe(field)[0].itemsize, 1)
        leaves = list(range(self._leaves[index], self._leaves[index + 1]))
        limits.check_size(group.num_rows * width, self._seen[1], self.path)
        try:
            chunk = decode(self._parquet, piece, leaves, self.path, self._seen[1])
            chunk.validate(full=True)
            return columns.from_column(chunk, field)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, LabError):
                raise
            raise Corrupt(f"{field.name!r} in {self.path!r} is damaged: {error}", key=self.path) from error

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Read everything: other programs may have written sums of pages."""
        for name in self.stat().arrays:
            index = self._schema.get_field_index(name)
            for piece in range(len(self._starts) - 1):
                try:
                    self._column(index, self._schema.field(index), piece)
                except Corrupt as error:
                    yield name, error.message, False
                    break
                except Foreign:  # values that an array can't say are no damage
                    break

    def loose_end(self) -> str | None:
        """Nothing: files of other programs are left alone."""
        return None


def _coded(field: Any) -> bool:
    return bool(pa.types.is_dictionary(field.type))


def _plain(field: Any) -> Any:
    """Give a field without its coding: categories are their values."""
    return field.with_type(field.type.value_type) if _coded(field) else field


def _leaves(kind: Any) -> int:
    """Count the columns that Parquet keeps for a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    if pa.types.is_nested(kind):
        return sum(_leaves(kind.field(index).type) for index in range(kind.num_fields))
    return 1
