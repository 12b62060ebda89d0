"""Where the record batches of another program's Arrow file or stream lie, found without reading any of them.

Formats: "IPC file format" and "IPC streaming format" of the Arrow columnar specification; ``File.fbs``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.ipc

from datastore_lab.errors import Corrupt, Foreign
from datastore_lab.streams import columns, disk, limits
from datastore_lab.streams.ipc import head
from datastore_lab.streams.kinds import said
from datastore_lab.streams.names import NotOurs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_BLOCK = struct.Struct("<qiiq")
_MOST_BATCHES = 1 << 22


class Batch(NamedTuple):
    """One record batch: where its message begins, and what it says of itself."""

    at: int
    head: head.Head


def find(path: str, size: int) -> tuple[Any, list[Batch]]:
    """Give the schema of a file or stream, and its batches in order.

    Raises
    ------
    NotOurs
        If it is neither.
    Foreign
        If it is one that is not read here.
    Corrupt
        If it is damaged, or ends too soon.
    """
    start = disk.read(path, 0, 8)
    if start[:6] == head.MAGIC[:6]:
        schema, _end = schema_of(path, 8, size)
        return schema, [_batch(path, at, size, head.BATCH) for at in _listed(path, size)]
    if start[:4] == head.NEXT:
        schema, end = schema_of(path, 0, size)
        return schema, [found for found in followed(path, end, size) if found.head.kind == head.BATCH]
    raise NotOurs(f"{path!r} is no Arrow file, but {said(path)}", key=path)


def schema_of(path: str, at: int, size: int) -> tuple[Any, int]:
    """Give the schema whose message begins at a byte, and where that message ends."""
    length = head.length_of(disk.read(path, at, at + 8))
    raw = disk.read(path, at, at + length)
    if not length or at + length > size:
        raise Corrupt(
            f"{path!r} begins like an Arrow file, and what describes its columns is not whole: it was cut or "
            "damaged, or written by Arrow before 0.15. Restore it from a copy, or write it anew with pyarrow",
            key=path,
        )
    message = head.table(raw, 8)
    described = message.table(2)
    if described is not None and described.number(0, "<h"):
        raise Foreign(f"{path!r} holds big-endian numbers; write it anew with pyarrow", key=path)
    return pa.ipc.read_schema(pa.py_buffer(raw)), at + length


def _listed(path: str, size: int) -> list[int]:
    """Give where the batches are, by the index at the end of a file."""
    length = _index_length(path, size)
    if length is None:
        raise Corrupt(
            f"{path!r} has lost its end, where an Arrow file says what it holds: it was cut, or its writer "
            "was stopped. recover() makes a whole file of what is there",
            key=path,
        )
    raw = disk.read(path, size - 10 - length, size - 10)
    start, count = head.table(raw, 0).vector(3, _BLOCK.size)
    return [_BLOCK.unpack_from(raw, start + _BLOCK.size * index)[0] for index in range(count)]


def has_index(path: str, size: int) -> bool:
    """Say whether a file ends as an Arrow file does that was closed."""
    return _index_length(path, size) is not None


def _index_length(path: str, size: int) -> int | None:
    tail = disk.read(path, max(0, size - 10), size)
    length = int.from_bytes(tail[:4], "little", signed=True)
    return length if tail[4:] == head.MAGIC[:6] and 0 < length < size - 10 else None


def followed(path: str, at: int, size: int) -> Iterator[Batch]:
    """Follow the messages of a stream to its end: its batches, and the dictionaries between them."""
    for _turn in range(_MOST_BATCHES):
        start = disk.read(path, at, at + 8)
        if not start or start == head.END:
            return
        batch = _batch(path, at, size)
        yield batch
        at += batch.head.size + batch.head.body


def _batch(path: str, at: int, size: int, kind: int | None = None) -> Batch:
    length = head.length_of(disk.read(path, at, at + 8)) if 0 <= at < size else 0
    found = head.parse(disk.read(path, at, at + length)) if length else None
    if found is None or at + found.size + found.body > size or kind not in {None, found.kind}:
        raise Corrupt(
            f"{path!r} is a damaged Arrow file: there is no whole batch at byte {at}, where one should be; "
            "restore it from a copy",
            key=path,
        )
    if found.rows < 0 or (not found.compressed and found.body and found.rows > 8 * found.body):
        raise Corrupt(f"{path!r} is a damaged Arrow file: a batch of {found.rows} rows", key=path)
    limits.check_size(found.rows // 8, size, path)
    return Batch(at, found)


def column(path: str, schema: Any, index: int, batch: Batch) -> Callable[[int, int], NDArray[Any]]:
    """Give what reads rows of a column of a batch: these alone where they lie there as they are.

    Raises
    ------
    pyarrow.ArrowException, ValueError
        If they are damaged, when they are read or before.
    """
    field, places = schema.field(index), _places(schema, index, batch.head)
    if places is None:
        rows = columns.from_column(_whole(path, schema, index, batch), field)
        return lambda start, stop: rows[start:stop]
    begin = batch.at + batch.head.size

    def fetch(start: int, stop: int) -> memoryview:
        return memoryview(disk.read(path, begin + start, begin + stop))

    return lambda start, stop: columns.from_column(
        columns.rebuild(field.type, batch.head.rows, start, stop, places, fetch), field
    )


def _places(schema: Any, index: int, found: head.Head) -> tuple[tuple[int, int], ...] | None:
    """Give the buffers of a column from which rows can be taken, if it is of such a kind."""
    kind = schema.field(index).type
    before = [_buffers(schema.field(other).type) for other in range(index)]
    tensor = isinstance(kind, pa.FixedShapeTensorType)
    flat = kind.value_type if tensor else kind
    plain = pa.types.is_primitive(flat) or pa.types.is_fixed_size_binary(flat) or pa.types.is_string(kind)
    odd_bits = tensor and pa.types.is_boolean(flat)  # (its rows begin within bytes)
    if found.compressed or found.nulls or None in before or not plain or odd_bits:
        return None
    first = sum(count or 0 for count in before)
    return found.buffers[first : first + columns.buffers(kind)]


def _buffers(kind: Any) -> int | None:
    """Say how many buffers a column has in a message; None for layouts that are not counted here."""
    if isinstance(kind, pa.BaseExtensionType):
        return _buffers(kind.storage_type)
    if pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_decimal(kind):
        return 2
    if pa.types.is_dictionary(kind):
        return 2
    if any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        return 3
    own = 1 if pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind) else 2
    if own == 2 and not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind)):
        return None
    inner = [_buffers(kind.field(number).type) for number in range(kind.num_fields)]
    return None if None in inner else own + sum(count or 0 for count in inner)


def _whole(path: str, schema: Any, index: int, batch: Batch) -> Any:
    """Read one column of one batch with Arrow: as a stream of that batch alone."""
    found = batch.head
    raw = disk.read(path, batch.at, batch.at + found.size + found.body)
    if len(raw) != found.size + found.body:
        raise Corrupt(f"{path!r} has lost its end, or was cut while it was read", key=path)
    limits.check_unpacked(raw, found, path)
    stream = pa.py_buffer(b"".join([_codes(schema).serialize(), raw]))
    options = pa.ipc.IpcReadOptions(included_fields=[index], use_threads=False)
    read = pa.ipc.open_stream(stream, options=options).read_next_batch()
    return columns.checked(read, path).column(0)


def _codes(schema: Any) -> Any:
    """Give the schema with the codes of dictionaries for their values, which are not read."""
    fields = [
        field.with_type(field.type.index_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)
