"""Arrow files of other programs that were stopped: what is whole of them, as a whole file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.ipc

from datastore_lab.engines.arrow import blocks
from datastore_lab.errors import Corrupt, EngineError
from datastore_lab.streams import columns, disk, limits
from datastore_lab.streams.ipc import head

if TYPE_CHECKING:
    from datastore_lab.engines.arrow.blocks import Batch


def salvage(path: str, target: str) -> str | None:
    """Write the whole batches of a file that lacks its index to another file; see `Salvages`."""
    size = os.stat(path).st_size  # noqa: PTH116
    if disk.read(path, 0, 6) != head.MAGIC[:6] or blocks.has_index(path, size):
        return None
    schema, end = blocks.schema_of(path, 8, size)
    rows = count = 0
    with pa.OSFile(target, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for message, batch in _whole(path, end, size):
            end = message.at + message.head.size + message.head.body
            writer.write_batch(batch)
            rows, count = rows + batch.num_rows, count + 1
    end += len(head.END) if disk.read(path, end, end + 8) == head.END else 0
    lost = f"; the last {size - end:,} bytes were no whole batch and are lost" if end < size else ""
    return f"an index was made for its {count:,} whole batches of {rows:,} rows together{lost}"


def _whole(path: str, begin: int, size: int) -> Iterator[tuple[Batch, Any]]:
    """Yield the batches of a file one after the other, up to the first that is not whole."""
    given = [disk.read(path, 8, begin)]  # the schema, and the dictionaries that the batches need
    try:
        for message in blocks.followed(path, begin, size):
            raw = disk.read(path, message.at, message.at + message.head.size + message.head.body)
            limits.check_unpacked(raw, message.head, path)
            if message.head.kind == head.BATCH:
                stream = pa.ipc.open_stream(pa.py_buffer(b"".join([*given, raw])))
                yield message, columns.checked(stream.read_next_batch(), path)
            else:
                given.append(raw)
    except (Corrupt, EngineError, pa.ArrowException, ValueError, StopIteration):
        return  # from here on it is torn
