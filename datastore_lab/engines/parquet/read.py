"""Reading arrays, or the row groups that a selection needs, and checking everything that lies there."""

from __future__ import annotations

import functools
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datastore_lab.engines.parquet.checked import CheckedFile, Part
from datastore_lab.engines.parquet.columns import TEXT, Column, as_raw, from_arrow
from datastore_lab.errors import Corrupt, EngineError, LabError
from datastore_lab.integrity import BLOCK
from datastore_lab.keys import Key, show
from datastore_lab.records import Problem, Record, Selection, gather, normalise_selection, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from datastore_lab.engines.parquet.doc import Doc
    from datastore_lab.engines.parquet.tree import Parts, Tree

_FAILURES = (LabError, pa.ArrowException, ValueError, OSError, OverflowError)
_LARGEST_PIECE = 512 << 20
"""Largest column of a row group, unpacked; those that are written here have at most an eighth of that."""


class _Source(NamedTuple):
    """An array that is to be read."""

    tree: Tree
    key: Key
    name: str
    parts: Parts
    doc: Doc

    @property
    def column(self) -> Column:
        return self.doc.arrays[self.name].column

    @property
    def files(self) -> tuple[Part, ...]:
        table = self.doc.arrays[self.name].table
        return self.doc.tables[table].parts if table else ()

    def damaged(self, what: str) -> Corrupt:
        return damage(self.tree, self.key, repr(self.name), what)


def damage(tree: Tree, key: Key, what: str, why: str) -> Corrupt:
    """Make the error for a file that is not as it was written."""
    return Corrupt(
        f"{what} of {show(key)!r} in {tree.root} is damaged: {why}. What lies elsewhere can still be read in "
        "parts; restore the rest from a copy",
        key=key,
    )


def open_part(tree: Tree, key: Key, parts: Parts, part: Part, what: str) -> CheckedFile:
    """Open one Parquet file of a record."""
    path = tree.where((*parts, part.name))
    return CheckedFile(path, tree.root, part, lambda why: damage(tree, key, what, why))


def read_array(tree: Tree, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
    """Read an array or a part of it, as a new array."""
    node = tree.node(key)
    if name not in node.doc.arrays:
        raise refusals.no_array(key, name, node.doc.arrays, tree.root)
    return _read(_Source(tree, key, name, node.parts, node.doc), selection)


def read_record(tree: Tree, key: Key) -> Record:
    """Read a whole record, by one description of it; small files are opened once for all of their arrays."""
    parts, doc = tree.node(key)
    sources = {name: _Source(tree, key, name, parts, doc) for name in doc.arrays}
    found: dict[str, NDArray[Any]] = {}
    for label, table in doc.tables.items():
        if len(table.parts) == 1 and table.parts[0].size <= BLOCK:
            found |= _read_small([one for one in sources.values() if doc.arrays[one.name].table == label])

    def read(name: str, selection: Selection) -> NDArray[Any]:
        return found[name] if name in found else _read(sources[name], selection)

    return gather(doc.stat(), read)


def _read_small(sources: list[_Source]) -> dict[str, NDArray[Any]]:
    """Read whole arrays that lie in one row group of one small file; none if they are to be read one by one.

    That is so where anything is wrong, too: then reading the array in question says what.
    """
    try:
        (part,) = sources[0].files
        with open_part(*sources[0][:2], sources[0].parts, part, repr(part.name)) as file:
            parquet = _open(sources[0], file, part)
            if parquet.metadata.num_row_groups != 1:
                return {}
            return {source.name: _read_only_group(source, parquet) for source in sources}
    except _FAILURES:
        return {}


def _read_only_group(source: _Source, parquet: Any) -> NDArray[Any]:
    column = source.column
    _refuse_absurd(source, column.rows)
    out = np.empty((column.rows, *column.inner), column.dtype)
    as_raw(out)[...] = _read_group(source, parquet, 0, _find_column(source, parquet))
    return out.reshape(column.shape)


def _read(source: _Source, selection: Selection) -> NDArray[Any]:
    wanted = normalise_selection(selection, source.column.shape)
    found, dtype = _select(source, wanted), source.column.dtype
    return found.view(dtype) if dtype.names is not None else found


def _select(source: _Source, wanted: Selection) -> NDArray[Any]:
    """Read a normalised selection; structured items as bytes."""
    shape = source.column.shape
    if not shape:
        return _read_rows(source, range(1)).reshape(())
    first = wanted[0]
    points = _points(first, shape[0])
    found = _read_items(source, points if points.step > 0 else points[::-1])
    head: int | slice = 0 if not isinstance(first, slice) else slice(None, None, -1 if points.step < 0 else 1)
    result = found[(head, *wanted[1:], ...)]
    return result if result.shape == found.shape and result.flags.c_contiguous else result.copy()


def _points(index: int | slice, length: int) -> range:
    if not isinstance(index, slice):
        return range(index, index + 1)
    if index.stop is None:  # normalised, with a negative step
        return range(index.start, -1, index.step)
    return range(*index.indices(length))


def _read_items(source: _Source, items: range) -> NDArray[Any]:
    """Read elements of the first axis, given in rising order."""
    column, per = source.column, source.column.per_item
    shape = (len(items), *column.shape[1:])
    if not math.prod(shape):
        return as_raw(np.empty(shape, column.dtype))
    if column.lead == 1:
        return _read_rows(source, items)
    whole = _read_rows(source, range(items[0] * per, (items[-1] + 1) * per))
    return whole.reshape(-1, *column.shape[1:])[:: items.step]


def _read_rows(source: _Source, rows: range) -> NDArray[Any]:
    """Read rows, given in rising order, from those groups that hold any of them."""
    column = source.column
    if not source.files:
        return as_raw(np.zeros((len(rows), *column.inner), column.dtype))
    _refuse_absurd(source, len(rows))
    out = as_raw(np.empty((len(rows), *column.inner), column.dtype))
    start = done = 0
    for part in source.files:
        inside = rows[_count_below(rows, start) : _count_below(rows, start + part.rows)]
        if inside:
            for piece in _read_part(source, part, inside, start):
                out[done : done + len(piece)] = piece
                done += len(piece)
        start += part.rows
    return out


def _count_below(rows: range, limit: int) -> int:
    """Count the rows that lie before a row."""
    return min(max(-((rows.start - limit) // rows.step), 0), len(rows))


def _refuse_absurd(source: _Source, count: int) -> None:
    """Refuse, before any memory is taken, what is claimed to be larger than the memory."""
    wanted = count * max(source.column.row_bytes, 1)
    if wanted > _memory():
        raise EngineError(
            f"{source.name!r} of {show(source.key)!r} claims {wanted:,} bytes, more than the memory of this "
            "computer; read a part of it",
            key=source.key,
        )


@functools.cache
def _memory() -> int:
    """Give the size of this computer's memory in bytes; no limit where it does not say."""
    if not hasattr(os, "sysconf"):
        return 1 << 62
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_part(source: _Source, part: Part, rows: range, start: int) -> Iterator[NDArray[Any]]:
    """Yield those of the rows that a file holds; its own rows begin with the number `start`."""
    with open_part(source.tree, source.key, source.parts, part, repr(source.name)) as file:
        try:
            parquet = _open(source, file, part)
            index = _find_column(source, parquet)
            for number, first, count in _groups(parquet.metadata, start):
                inside = rows[_count_below(rows, first) : _count_below(rows, first + count)]
                if inside:
                    cut = slice(inside[0] - first, inside[-1] - first + 1, rows.step)
                    yield _read_group(source, parquet, number, index)[cut]
        except LabError:
            raise
        except _FAILURES as error:
            raise file.failure or source.damaged(f"{part.name!r} can't be read ({error})") from error


def _open(source: _Source, file: CheckedFile, part: Part) -> Any:
    """Open a file that is what its description says; small ones are read in one piece."""
    whole = pa.BufferReader(file.read()) if part.size <= BLOCK else pa.PythonFile(file, mode="r")
    parquet = pq.ParquetFile(whole)
    if parquet.metadata.num_rows != part.rows:
        raise source.damaged(f"{part.name!r} holds {parquet.metadata.num_rows:,} rows, not {part.rows:,}")
    return parquet


def _find_column(source: _Source, parquet: Any) -> int:
    """Give the number of the one leaf that holds the array."""
    schema = parquet.schema_arrow
    index = schema.get_field_index(source.name)
    if index < 0 or len(schema) != parquet.metadata.num_columns:
        raise source.damaged("its column is missing")
    if (found := schema.field(index).type) != source.column.arrow_type:
        raise source.damaged(f"its column is of the type {found}, not {source.column.arrow_type}")
    return int(index)


def _groups(metadata: Any, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, first row and number of rows of the row groups."""
    for number in range(metadata.num_row_groups):
        count = metadata.row_group(number).num_rows
        yield number, start, count
        start += count


def _read_group(source: _Source, parquet: Any, number: int, index: int) -> NDArray[Any]:
    column = source.column
    group = parquet.metadata.row_group(number)
    claimed = group.num_rows * column.row_bytes if column.stored != TEXT else 0
    if max(claimed, group.column(index).total_uncompressed_size) > max(_LARGEST_PIECE, 4 * column.row_bytes):
        raise source.damaged(f"a row group claims to unpack to {claimed:,} bytes")
    table = parquet.reader.read_row_groups([number], column_indices=[index], use_threads=False)
    if table.num_rows != group.num_rows:
        raise source.damaged(f"a row group holds {table.num_rows:,} rows, not {group.num_rows:,}")
    pieces = table.column(0).chunks
    for piece in pieces:
        piece.validate(full=True)  # what is wrong in itself, and has sums that fit, would crash Arrow
    found = [as_raw(from_arrow(piece, column)) for piece in pieces]
    return found[0] if len(found) == 1 else np.concatenate(found, dtype=found[0].dtype)


# -- verifying -----------------------------------------------------------------------------------------


def verify_node(tree: Tree, key: Key, parts: Parts, doc: Doc | LabError) -> Iterator[Problem]:
    """Read all files of one node and yield what is not as it was written."""
    if isinstance(doc, LabError):
        yield Problem(key, None, str(doc))
        return
    for part in doc.parts():
        names = doc.names_in(part)
        name = names[0] if len(names) == 1 else None
        try:
            problem = verify_part(tree, key, parts, part)
        except (LabError, OSError) as error:
            problem = str(error)
        if problem:
            yield Problem(key, name, problem)


def verify_part(tree: Tree, key: Key, parts: Parts, part: Part) -> str | None:
    """Check all blocks of one file, and that it is Parquet with as many rows as it should have."""
    with open_part(tree, key, parts, part, repr(part.name)) as file:
        if blocks := file.damaged_blocks():
            where = ", ".join(map(str, blocks[:10])) + (", ..." if len(blocks) > 10 else "")
            return f"{part.name!r} is damaged: the blocks {where} are not as they were written (checksum)"
        try:
            rows = pq.ParquetFile(pa.PythonFile(file, mode="r")).metadata.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            return f"{part.name!r} is no Parquet file ({error})"
    return None if rows == part.rows else f"{part.name!r} holds {rows:,} rows, not {part.rows:,}"
