"""Decoding one column of one row group, in no more memory than its file may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datastore_lab.streams import limits

if TYPE_CHECKING:
    from collections.abc import Sequence

_FRONT_CODED = ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY")


def open_file(source: Any) -> Any:
    """Open a Parquet file such that text stays coded: each of its values once, and which row has which."""
    plain = pq.ParquetFile(source, memory_map=False, page_checksum_verification=True)
    texts = {field.name for field in plain.schema_arrow if _is_text(field.type)}
    texts -= _front_coded(plain.metadata)  # (Arrow can't keep these coded)
    if not texts:
        return plain
    return pq.ParquetFile(
        source,
        metadata=plain.metadata,
        memory_map=False,
        page_checksum_verification=True,
        read_dictionary=sorted(texts),
    )


def decode(parquet: Any, piece: int, leaves: Sequence[int], path: str, size: int) -> Any:
    """Give a column of a row group as one array.

    Parameters
    ----------
    parquet : ParquetFile
        As `open_file` gives it.
    piece : int
    leaves : sequence of int
        The columns of Parquet that it is made of.
    path : str
    size : int
        Bytes of the file.

    Raises
    ------
    EngineError
        If it unpacks into much more than the file has.
    """
    group = parquet.metadata.row_group(piece)
    chunks = [group.column(leaf) for leaf in leaves]
    declared = sum(max(chunk.total_uncompressed_size, 0) for chunk in chunks)
    if any(_is_front_coded(chunk) for chunk in chunks):  # each may repeat all of the one before
        declared *= group.num_rows
    limits.check_size(max(declared, group.num_rows), size, path)
    table = parquet.reader.read_row_group(piece, column_indices=list(leaves), use_threads=False)
    column = table.column(0)
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        limits.check_size(sum(_unpacked(chunk) for chunk in column.chunks), size, path)
        column = column.cast(column.type.value_type)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_front_coded(chunk: Any) -> bool:
    return not set(_FRONT_CODED).isdisjoint(chunk.encodings)


def _front_coded(metadata: Any) -> set[str]:
    """Name the columns of which any part says that it is coded by what differs from the value before."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = (group.column(index) for group in groups for index in range(group.num_columns))
    return {chunk.path_in_schema for chunk in chunks if _is_front_coded(chunk)}


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _unpacked(coded: Any) -> int:
    """Add up the bytes of all rows of a coded column."""
    values, rows = coded.dictionary, coded.indices
    if not _is_text(values.type):
        return len(coded) * max(int(values.type.bit_width) // 8, 1)
    width = np.dtype("i8" if pa.types.is_large_string(values.type) else "i4")
    raw = values.buffers()[1]
    count = len(values) + 1 if len(values) else 0
    ends = np.frombuffer(raw or b"", width, count, values.offset * width.itemsize)
    which = np.frombuffer(rows.buffers()[1] or b"", rows.type.to_pandas_dtype(), len(rows) + rows.offset)
    lengths = np.diff(ends).astype("i8")
    times = np.bincount(which[rows.offset :].clip(0), minlength=len(lengths))[: len(lengths)]
    return int((lengths.astype("f8") * times).sum())
