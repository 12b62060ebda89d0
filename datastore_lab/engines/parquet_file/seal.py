"""From a spool to a Parquet file: temporary file, sync, rename, sync of the folder; then the spool may go."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from datastore_lab import integrity, media
from datastore_lab.engines.parquet_file.carry import carried, coding, pack
from datastore_lab.engines.parquet_file.merge import Groups
from datastore_lab.errors import EngineError
from datastore_lab.integrity import LAYOUT, SEAL, SUMS, VERSION, RunningSums
from datastore_lab.streams import disk
from datastore_lab.streams.ipc.write import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datastore_lab.records import Stat
    from datastore_lab.streams.ipc.read import IpcFile

KIND, KEY, META, ARRAYS, SUM = "lab_kind", "lab_key", "lab_meta", "lab_arrays", "lab_sum"
SUM_AT = re.compile(rb"lab_sum\x18\x10([0-9a-f]{16})")
"""Where the sum of the footer stands in it: a text of 16 bytes, in Thrift's compact form."""

_GROUP_BYTES, _COLUMN_BYTES = 2_000_000, 64_000
"""Of a row group, which is read as a whole where a few rows are wanted; and of each column, at least."""

_GROUP_ROWS, _MOST_BYTES = 65_536, 8_000_000
"""Of narrow rows: a group has as many as this, unless it were too many bytes."""

_TEMPORARY = "-seal"


class SummingFile(io.RawIOBase):
    """A file that is written once from beginning to end, and summed block by block meanwhile.

    After `hold` what comes is kept back, so that a sum can still be put into it.
    """

    def __init__(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 (of an attempt that was killed)
        self._handle = disk.create(path)
        self._at = 0
        self._sums = RunningSums()
        self.held: bytearray | None = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at + len(self.held or b"")

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        count = len(view)
        if self.held is not None:
            self.held += view
            return count
        self._sums.add(view)
        self._at = disk.write_at(self._handle, view, self._at)
        return count

    def hold(self) -> list[int]:
        """Keep back what comes from here on; gives the sums of all blocks before."""
        self.held = bytearray()
        return self._sums.sums()

    def finish(self, *, durable: bool) -> None:
        """Write what was held, and make all of it durable."""
        disk.write_at(self._handle, self.held or b"", self._at)
        if durable:
            os.fsync(self._handle)

    def release(self) -> None:
        """Let go of the file."""
        os.close(self._handle)


def seal(spool: IpcFile, path: str, *, durable: bool = True) -> None:
    """Make the Parquet file of a stream."""
    temporary = path + _TEMPORARY
    file = SummingFile(temporary)
    try:
        try:
            _write(spool, file)
            file.finish(durable=durable)
        finally:
            file.release()
        newest = max(os.stat(spool.path).st_mtime_ns + 1, os.stat(temporary).st_mtime_ns)  # noqa: PTH116
        os.utime(temporary, ns=(newest, newest))  # the revision of the store never goes back
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):  # (the next attempt removes it)
            os.unlink(temporary)  # noqa: PTH108
        raise
    if durable:
        media.sync_folder(os.path.dirname(path))  # noqa: PTH120


def _write(spool: IpcFile, file: SummingFile) -> None:
    stat = spool.stat()
    fields = [spool.schema.field(name) for name in stat.arrays]
    schema = pa.schema([carried(field) for field in fields])
    step = int(spool.metadata.get(BATCH, _group_rows(stat, spool.rows)))
    made = Groups(schema, {"write_page_checksum": True, "version": "2.6", **coding(fields, schema)})
    for body in made.bodies(_groups(spool, schema, step)):
        file.write(body)
    before = file.tell()
    file.write(made.footer(_metadata(spool.key, stat, file.hold())))
    _sign(file, before)


def _groups(spool: IpcFile, schema: Any, step: int) -> Iterator[Any]:
    """Yield the rows of a spool, so many at a time, in the form that they have in Parquet."""
    waiting: list[Any] = []
    lacking = step
    for batch in spool.batches():
        made = [pack(*pair) for pair in zip(batch.columns, schema.types, strict=True)]
        rest = pa.RecordBatch.from_arrays(made, schema=schema)
        while rest.num_rows:
            waiting.append(rest.slice(0, lacking))
            rest = rest.slice(lacking)
            lacking -= waiting[-1].num_rows
            if not lacking:
                yield pa.Table.from_batches(waiting)
                waiting, lacking = [], step
    if waiting:
        yield pa.Table.from_batches(waiting)


def _group_rows(stat: Stat, rows: int) -> int:
    each = max(1, sum(info.nbytes for info in stat.arrays.values()) // max(rows, 1))
    least = max(_GROUP_BYTES, _COLUMN_BYTES * len(stat.arrays)) // each
    return max(1, least, min(_GROUP_ROWS, _MOST_BYTES // each))


def _metadata(key: Any, stat: Stat, sums: list[int]) -> dict[str, str]:
    arrays = {
        name: {"dtype": info.dtype, "shape": list(info.shape), "dims": list(info.dims)}
        for name, info in stat.arrays.items()
    }
    return {
        VERSION: str(LAYOUT),
        KIND: stat.kind,
        KEY: media.to_json(list(key)),
        META: media.to_json(stat.meta),
        ARRAYS: media.to_json(arrays),
        SEAL: integrity.seal(stat),
        SUMS: "".join(f"{one:016x}" for one in sums),
        SUM: "0" * 16,
    }


def _sign(file: SummingFile, before: int) -> None:
    """Put the sum of the footer into it."""
    held = file.held or bytearray()
    place = SUM_AT.search(held)
    if place is None or int.from_bytes(held[-8:-4], "little") + 8 != len(held):
        raise EngineError(f"the footer at {before} can't be signed", key=before)
    held[place.start(1) : place.end(1)] = footer_sum(bytes(held), place.span(1))


def footer_sum(raw: bytes, place: tuple[int, int]) -> bytes:
    """Give the sum over a footer, its own sum taken as zeros."""
    return b"%016x" % integrity.block_sum(raw[: place[0]] + b"0" * 16 + raw[place[1] :])
