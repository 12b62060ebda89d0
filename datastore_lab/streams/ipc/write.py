"""Appending to one Arrow file: batch by batch, durable at each flush, never rewritten."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from datastore_lab import linux, media
from datastore_lab.integrity import BLOCK, LAYOUT, VERSION
from datastore_lab.records import ARRAY_ATTRIBUTES, Stat
from datastore_lab.streams import columns, disk
from datastore_lab.streams.ipc import head, sink
from datastore_lab.streams.rows import Rows, StreamAppender, batch_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from datastore_lab.keys import Key

_MOST_ROOM = 1 << 26
"""Bytes of the disk that a growing file has beyond its end, at most."""

KIND, KEY, META = b"lab_kind", b"lab_key", b"lab_meta"

BATCH = b"lab_rows"
"""In the schema: how many rows were asked to lie together, where that was said."""


class IpcAppender(StreamAppender):
    """Each piece of rows is one record batch, whose metadata hold its number and its sums.

    What is said at the end (`close`) is the metadata of a last batch without rows, since nothing at the
    beginning of the file can be changed any more.

    Parameters
    ----------
    path, key, spec, release
        As for `StreamAppender`.
    durable : bool
        Sync at each flush.
    """

    def __init__(
        self, path: str, key: Key, spec: Stat, release: Callable[[], None], *, durable: bool = True
    ) -> None:
        super().__init__(path, key, spec, release)
        self._durable = durable
        self.schema = schema(key, spec)
        self._number = self._at = self._end_at = self._written = self._room = 0
        self._first = b""
        self._footer: memoryview | None = None
        self._sink = sink.Sink()
        self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), self.schema)
        self._handle = disk.create(path)
        try:
            self._begin()
        except BaseException:
            os.close(self._handle)
            with contextlib.suppress(OSError):  # (a beginning without rows is no stream for anybody)
                os.unlink(path)  # noqa: PTH108
            raise

    def _begin(self) -> None:
        """Write the schema, which Arrow does with the first batch only, and mark it when it is durable."""
        self._put({})
        with disk.typed(self._path, "can't be begun"):
            raw = self._held[0]
            end = disk.write_at(self._handle, raw, 0)
            self._wait()
            disk.write_at(self._handle, head.mark(end), end)
            self._wait()
            if self._durable:
                media.sync_folder(os.path.dirname(self._path))  # noqa: PTH120
        self._at = end
        self._let_out()

    def _wait(self) -> None:
        if self._durable:
            os.fsync(self._handle)

    def _put(self, rows: Rows) -> None:
        self._write_batch(rows, {})
        for part in self._signed():
            self._hold(part)
        if self._number:
            self._write_ahead()
        self._number += 1

    def _signed(self) -> list[Buffer]:
        """Take the batch that was written last, with its sums."""
        parts = self._sink.take()
        sink.sign(parts, 0 if self._number else 8 + head.length_of(bytes(memoryview(parts[0])[8:16])))
        return parts

    def _write_batch(self, rows: Rows, extra: Mapping[str, str]) -> None:
        given = rows or {name: self._no_rows(name) for name in self._types}
        made = [columns.to_column(given[field.name], field.type) for field in self.schema]
        batch = pa.RecordBatch.from_arrays(made, schema=self.schema)
        most = pa.ipc.get_record_batch_size(batch) // BLOCK + 1
        sums = {
            head.NUMBER: f"{self._number:016x}", head.SUMS: "0" * 16 * most, head.SUM: "0" * 16,
        }  # fmt: skip
        self._writer.write_batch(batch, custom_metadata={**extra, **sums})

    def _no_rows(self, name: str) -> NDArray[Any]:
        return np.empty((0, *self.spec.arrays[name].shape[1:]), self._types[name])

    def _sync(self) -> None:
        """Write all but the first bytes behind the last mark; when they are durable put these over it.

        So there is at every moment a mark, or what stands for one, behind everything that was acknowledged:
        what is damaged before it is never taken for an end that was not finished.
        """
        disk.check_there(self._handle, self._path)
        if not self._held:
            return
        end = self._write_held()
        disk.write_at(self._handle, head.premark(self._at), end)
        if self._durable:
            self._written = 0  # (whoever tries again writes all again: a sync that fails may have lost it)
        self._wait()
        self._ahead = True
        disk.write_at(self._handle, self._first, self._at)
        disk.write_at(self._handle, head.mark(end), end)
        self._wait()
        self._ahead, self._at, self._written = False, end, 0
        self._let_out()

    def _write_held(self) -> int:
        """Write what is held, and was not written yet, but for its first bytes; gives where it ends."""
        if not self._written:
            self._first, self._end_at = bytes(memoryview(self._held[0])[: head.MARK]), self._at + head.MARK
        for index, part in enumerate(self._held[self._written :], self._written):
            view = memoryview(part)[0 if index else head.MARK :]
            self._ask_for_room(len(view))
            self._end_at = disk.write_at(self._handle, view, self._end_at)
            self._written += 1
        if not self._durable:  # what is written stays, without a sync that might say otherwise
            self._held = [b""] * len(self._held)
            self._memory.give(self._in_use)
            self._in_use = []
        return self._end_at

    def _ask_for_room(self, size: int) -> None:
        """Have the file system find room for as much as there is already, which makes writing faster."""
        end = self._end_at + size
        if end > self._room:
            self._room = end + min(end, _MOST_ROOM)
            linux.reserve(self._handle, self._end_at, self._room - self._end_at, ahead=True)

    def _write_ahead(self) -> None:
        """Give the disk something to do meanwhile; it counts when it was written behind a mark and synced."""
        try:
            self._write_held()
        except OSError:  # the next flush goes on, and says what is the matter
            self._written = 0 if self._durable else self._written

    def _undo(self) -> None:
        disk.write_at(self._handle, head.mark(self._at), self._at)

    def _end(self, meta: Mapping[str, Any]) -> None:
        if self._footer is None:
            self._footer = self._last_batch(meta)
        self._sync()
        end = disk.write_at(self._handle, self._footer, self._at)
        os.ftruncate(self._handle, end)  # what room is left goes back
        self._wait()
        self._release_file()

    def _last_batch(self, meta: Mapping[str, Any]) -> memoryview:
        """Hold the batch that ends the stream; gives what lies behind it, the index for other programs."""
        self._write_batch({}, {head.META: media.to_json(meta), head.TAIL: "0" * 32})
        self._writer.close()
        parts = self._sink.take()
        end = sink.sign(parts, 0)
        raw = memoryview(b"".join(parts))
        self._hold(raw[:end])
        return raw[end:]

    def _release_file(self) -> None:
        handle, self._handle = self._handle, -1
        os.close(handle)

    def _let_go(self) -> None:
        """End the file as it is: without a footer everything that was flushed stays readable."""
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):  # (what follows the mark is not looked at anyway)
            self._undo()
            os.ftruncate(self._handle, self._at + head.MARK)
        self._release_file()


def schema(key: Key, spec: Stat) -> Any:
    """Make the schema of a stream."""
    attributes = spec.meta.get(ARRAY_ATTRIBUTES, {})
    fields = [columns.field(name, info, attributes.get(name, {})) for name, info in spec.arrays.items()]
    meta = {name: value for name, value in spec.meta.items() if name != ARRAY_ATTRIBUTES}
    said: dict[Any, str] = {
        VERSION: str(LAYOUT),
        KIND: spec.kind,
        KEY: media.to_json(list(key)),
        META: media.to_json(meta),
    }
    if (batch := batch_rows(spec)) is not None:
        said[BATCH] = str(batch)
    return pa.schema(fields, said)
