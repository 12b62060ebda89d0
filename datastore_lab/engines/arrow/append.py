"""Appending to one Arrow file: batch by batch, durable at each flush, never rewritten."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import xxhash

from datastore_lab import dtypes, media
from datastore_lab.engines.arrow import types
from datastore_lab.engines.arrow.file import CHECKSUMS, KEY, KIND, META
from datastore_lab.errors import AlreadyExists, EngineError, ReadOnly
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, Stat, check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH_BYTES = 4_000_000


class ArrowAppender:
    """Rows wait until 4 MB are together or a flush is asked for; then they are one record batch.

    What is said at the end (`close`) is the metadata of a last batch without rows, since nothing at the
    beginning of the file can be changed any more.
    """

    def __init__(self, path: str, key: Key, spec: Stat, *, durable: bool = True) -> None:
        self._durable = durable
        self._path, self._key, self._spec = path, key, spec
        self._schema = _schema(key, spec)
        self._types = {name: dtypes.parse(info.dtype) for name, info in spec.arrays.items()}
        self._waiting: list[Mapping[str, NDArray[Any]]] = []
        self._bytes = 0
        self._digests = {name: xxhash.xxh3_128() for name in spec.arrays}
        self._lock = threading.RLock()
        self._closed = False
        self._handle = _create(path)
        self._sink = pa.OSFile(path, "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._put({})  # the schema goes to disk with the first batch only
        self._sync()
        media.sync_folder(os.path.dirname(path))  # noqa: PTH120

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        with self._lock:
            if self._closed:
                raise EngineError(f"the stream {show(self._key)!r} is closed", key=self._key)
            check_rows(self._key, block, self._spec.arrays)
            own = {name: np.array(rows, self._types[name], order="C") for name, rows in block.items()}
            self._waiting.append(own)
            self._bytes += sum(rows.nbytes for rows in own.values())
            if self._bytes >= _BATCH_BYTES:
                self._put_waiting()

    def flush(self) -> None:
        with self._lock:
            if self._closed:
                return
            if self._waiting:
                self._put_waiting()
            self._sync()

    def close(self, meta: Mapping[str, Any]) -> None:
        media.check_json(meta)
        with self._lock:
            if self._closed:
                return
            self.flush()
            sums = {name: digest.hexdigest() for name, digest in self._digests.items()}
            self._put({META: media.to_json(meta), CHECKSUMS: media.to_json(sums)})
            try:
                self._writer.close()
                self._sink.close()
            except OSError as error:
                raise self._failed(error) from error
            self._sync()
            self._closed = True
            os.close(self._handle)

    def _put_waiting(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        joined = {
            name: waiting[0][name]
            if len(waiting) == 1
            else np.concatenate([block[name] for block in waiting])
            for name in self._types
        }
        self._put({}, joined)
        for name, rows in joined.items():
            media.add_checksum(self._digests[name], rows)

    def _put(self, extra: Mapping[bytes, str], rows: Mapping[str, NDArray[Any]] | None = None) -> None:
        given = rows or {
            name: np.empty((0, *info.shape[1:]), self._types[name])
            for name, info in self._spec.arrays.items()
        }
        columns = [types.to_column(given[field.name], field.type) for field in self._schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        try:
            self._writer.write_batch(batch, custom_metadata=dict(extra) or None)
        except OSError as error:
            raise self._failed(error) from error

    def _sync(self) -> None:
        try:
            if self._durable:
                os.fsync(self._handle)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> EngineError:
        """End the file as it is: without a footer everything before the failure stays readable."""
        self._closed = True
        self._waiting.clear()
        self._writer = None
        self._sink.close()
        os.close(self._handle)
        return EngineError(
            f"{self._path!r} can't be written any further: {error}; what was flushed before stays readable",
            key=self._path,
        )


def _create(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except FileExistsError as error:
        raise AlreadyExists(f"{path!r} exists already, and streams never overwrite", key=path) from error
    except PermissionError as error:
        raise ReadOnly(f"{path!r} can't be written: {error.strerror}", key=path) from error
    except OSError as error:
        raise EngineError(f"{path!r} can't be made: {error.strerror}", key=path) from error


def _schema(key: Key, spec: Stat) -> Any:
    attributes = spec.meta.get(ARRAY_ATTRIBUTES, {})
    fields = [types.field(name, info, attributes.get(name, {})) for name, info in spec.arrays.items()]
    meta = {name: value for name, value in spec.meta.items() if name != ARRAY_ATTRIBUTES}
    return pa.schema(fields, {KIND: spec.kind, KEY: media.to_json(list(key)), META: media.to_json(meta)})
