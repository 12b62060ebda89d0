"""Writing Parquet files with the sums of their blocks, in row groups of about a megabyte per column."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datastore_lab.engines.parquet.checked import CheckedFile, Part
from datastore_lab.engines.parquet.columns import TEXT, Column, to_arrow
from datastore_lab.folders import files
from datastore_lab.integrity import BLOCK, block_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from datastore_lab.folders.log import TreeLog

_GROUP, _LARGEST_GROUP, _GROUPS = 1 << 20, 64 << 20, 1000
_SAMPLE, _GAIN, _SMALL = 256 << 10, 0.9, 4096


class _Sink:
    """A new file in the stage for Arrow to write to; small ones are written in one piece, with the commit."""

    closed = False

    def __init__(self, log: TreeLog, path: str) -> None:
        self._log, self._path = log, path
        self._file: files.NewFile | None = None
        self._waiting = bytearray()
        self.size = 0
        self.sums: list[int] = []

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Do nothing: what is written becomes durable with the commit."""

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        self.size += len(view)
        at = min(BLOCK - len(self._waiting), len(view)) if self._waiting else 0
        self._waiting += view[:at]
        if len(self._waiting) == BLOCK:
            self._put(self._waiting)
            self._waiting = bytearray()
        while len(view) - at >= BLOCK:
            self._put(view[at : at + BLOCK])
            at += BLOCK
        self._waiting += view[at:]
        return len(view)

    def _put(self, block: Buffer) -> None:
        self.sums.append(block_sum(block))
        if self._file is None:
            self._file = files.NewFile(self._path)
        self._file.write(block)

    def finish(self) -> None:
        """Write the rest."""
        if self._waiting and self._file is None:
            self.sums.append(block_sum(self._waiting))
            self._log.write(self._path, self._waiting)
            return
        if self._waiting:
            self._put(self._waiting)
        self.close()
        if self._log.durable:
            files.sync(self._path)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.closed = True
        if self._file is not None:
            self._file.close()


def write(log: TreeLog, path: str, name: str, groups: Iterator[Any]) -> Part:
    """Write a Parquet file, one row group after the other.

    Parameters
    ----------
    log : TreeLog
    path : str
        Of the new file, in the stage.
    name : str
        That it will have in the record.
    groups : iterator of pyarrow.Table
        One per row group; at least one.
    """
    sink, rows, first = _Sink(log, path), 0, next(groups)
    try:
        with pq.ParquetWriter(sink, first.schema, **_options(first)) as writer:
            for group in itertools.chain([first], groups):
                writer.write_table(group, row_group_size=max(len(group), 1))
                rows += len(group)
        sink.finish()
    finally:
        sink.close()
    return Part(name, rows, sink.size, np.array(sink.sums, "<u8").tobytes())


def _options(first: Any) -> dict[str, Any]:
    plain = [field.name for field in first.schema if pa.types.is_primitive(field.type)]
    small = [leaf_path(field) for field in first.schema if _is_small_integer(field.type)]
    packing = choose_packing(first) | dict.fromkeys(small, "none")
    return {
        "compression": dict(packing) or "none",
        "compression_level": {path: 1 for path, codec in packing.items() if codec == "zstd"} or None,
        "use_dictionary": False,
        "write_statistics": plain or False,
        # Parquet holds them as 32 bits each, unless they are packed
        "column_encoding": dict.fromkeys(small, "DELTA_BINARY_PACKED") or None,
    }


def leaf_path(field: Any) -> str:
    """Give the path of a column in Parquet's own schema."""
    return f"{field.name}.list.element" if pa.types.is_fixed_size_list(field.type) else str(field.name)


def _is_small_integer(kind: Any) -> bool:
    leaf = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    return bool(pa.types.is_integer(leaf)) and leaf.bit_width < 32


def choose_packing(table: Any) -> dict[str, str]:
    """Compress the columns of which a sample shrinks: float noise does not, counters and images do."""
    return {leaf_path(field): _codec(table.column(field.name)) for field in table.schema}


def _codec(column: Any) -> str:
    chunk = column.chunk(0) if column.num_chunks else None
    buffers = [buffer for buffer in chunk.buffers()[1:] if buffer] if chunk is not None else []
    if not buffers or buffers[-1].size < _SMALL:
        return "none"
    sample = memoryview(buffers[-1])[:_SAMPLE]
    packed = pa.Codec("zstd", 1).compress(sample, asbytes=True)
    return "zstd" if len(packed) < _GAIN * len(sample) else "none"


def rows_per_group(columns: Iterable[tuple[Column, int]]) -> int:
    """Choose the number of rows of a group, from the columns and their sizes in bytes.

    The widest column takes a megabyte of each group, more where there would be over a thousand groups.
    """
    widest, rows = 1.0, 1
    for column, size in columns:
        rows = max(column.rows, 1)
        widest = max(widest, size / rows)
    target = min(max(_GROUP, widest * rows / _GROUPS), _LARGEST_GROUP)
    return max(int(target / widest), 1)


def size_of(array: NDArray[Any], column: Column) -> int:
    """Estimate the bytes that an array takes in its column."""
    if column.stored != TEXT:
        return array.nbytes
    lengths = np.strings.str_len(array)
    return int(lengths.sum()) + 4 * array.size


def cut(arrays: Mapping[str, NDArray[Any]], columns: Mapping[str, Column], rows: int) -> Iterator[Any]:
    """Yield the row groups of arrays of equal numbers of rows, as tables; at least one."""
    schema = pa.schema([column.field(name) for name, column in columns.items()])
    flat = {name: arrays[name].reshape(column.rows, *column.inner) for name, column in columns.items()}
    total = max((column.rows for column in columns.values()), default=0)
    for start in range(0, max(total, 1), rows):
        pieces = [to_arrow(flat[name][start : start + rows], column) for name, column in columns.items()]
        yield pa.Table.from_arrays(pieces, schema=schema)


def write_arrays(
    log: TreeLog, path: str, name: str, arrays: Mapping[str, NDArray[Any]], columns: Mapping[str, Column]
) -> tuple[Part, int]:
    """Write arrays of equal numbers of rows as one file; gives also how many of them are in a group."""
    rows = rows_per_group((column, size_of(arrays[label], column)) for label, column in columns.items())
    return write(log, path, name, cut(arrays, columns, rows)), rows


def join(log: TreeLog, path: str, name: str, sources: Iterable[Callable[[], CheckedFile]]) -> Part:
    """Write several files of one schema as one, a megabyte or so at a time."""
    return write(log, path, name, _joined(_groups(sources)))


def _groups(sources: Iterable[Callable[[], CheckedFile]]) -> Iterator[Any]:
    for source in sources:
        with source() as file:
            parquet = pq.ParquetFile(pa.PythonFile(file, mode="r"))
            for number in range(parquet.num_row_groups):
                yield parquet.read_row_group(number, use_threads=False)


def _joined(groups: Iterable[Any]) -> Iterator[Any]:
    waiting: list[Any] = []
    for group in groups:
        waiting.append(group)
        if sum(table.nbytes for table in waiting) >= _GROUP * max(group.num_columns, 1):
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
