"""Streams in Parquet files, one file per stream: for appending and reading.

A Parquet file can be read only when its end is written, so a stream that is growing is kept in an Arrow file
beside it, the spool ``run.<stream>.parquet-spool``, and sealed into Parquet when it is closed. The spool of a
killed writer is read as it is, and sealed when the store is next opened for writing.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, ClassVar

from datastore_lab import media
from datastore_lab.engines.parquet_file.foreign import ForeignFile
from datastore_lab.engines.parquet_file.seal import seal
from datastore_lab.engines.parquet_file.sealed import MAGIC, SealedFile, is_ours
from datastore_lab.errors import Corrupt, LabError
from datastore_lab.records import Stat, Traits
from datastore_lab.streams import disk
from datastore_lab.streams.engine import StreamsEngine
from datastore_lab.streams.ipc.read import IpcFile, Unfinished
from datastore_lab.streams.ipc.write import IpcAppender
from datastore_lab.streams.names import NotOurs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from datastore_lab.keys import Key
    from datastore_lab.streams.protocols import StreamFile

SPOOL = "-spool"
_GLIMPSE = 8192


class ParquetFileEngine(StreamsEngine):
    """Streams in Parquet files that share the beginning of their names.

    Nothing that was written is ever changed: `write`, `update`, `move` and `delete` raise `ReadOnly`. Files
    of pandas, Polars, DuckDB and others open for reading; what is no array of them is in ``lab_refused``.

    Parameters
    ----------
    path : path-like
        ``data/run.parquet``: the file itself, if there is one, and all ``data/run.<stream>.parquet``.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``"w"`` deletes the files of the store.
    timeout : float, default 0.0
        How long to wait for another writer of the same stream, in seconds.
    durability : {"disk", "process"}
        What a flush survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib, pyarrow.parquet
    >>> from datastore_lab.records import ArrayInfo, Stat
    >>> folder = tempfile.TemporaryDirectory()
    >>> engine = ParquetFileEngine(pathlib.Path(folder.name) / "run.parquet")
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    >>> appender = engine.append(("daq",), spec)
    >>> appender.extend({"x": np.arange(3.0)}); appender.close({"lost": 0})
    >>> pyarrow.parquet.read_table(pathlib.Path(folder.name) / "run.daq.parquet")["x"].to_pylist()
    [0.0, 1.0, 2.0]
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="Parquet",
        structure="columns of a table",
        compresses=True,
        appends=True,
        hierarchical=False,
        n_dimensional=True,
        self_describing=True,
        parallel_write=True,
        cloud=True,
        opens_in=("pandas", "Polars", "pyarrow", "DuckDB", "R (by the format)", "Spark (by the format)"),
    )
    tails: ClassVar[tuple[str, ...]] = ("", SPOOL)

    def _read_file(self, path: str) -> StreamFile:
        spooled = os.path.isfile(path + SPOOL)  # noqa: PTH113
        if not os.path.isfile(path):  # noqa: PTH113
            with contextlib.suppress(FileNotFoundError):  # (it may be sealed just now)
                return _Spool(path + SPOOL)
        try:
            return SealedFile(path) if is_ours(path) else ForeignFile(path)
        except Corrupt:
            if not spooled:
                raise
            return _Spool(path + SPOOL)  # it is dropped only when the sealed file is durable

    def _glimpse(self, key: Key, path: str) -> bool:
        start, end = disk.ends(path, 4, _GLIMPSE)
        whole = start == MAGIC == end[-4:]
        return whole and b"lab_key\x18" in end and b"%s\0" % media.to_json(list(key)).encode() in end

    def _begin(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> IpcAppender:
        return _ParquetAppender(path, key, spec, release, durable=self._durable)

    def _recover(self, path: str) -> None:
        if not os.path.isfile(path + SPOOL):  # noqa: PTH113
            return
        file = self._look(path)
        with contextlib.suppress(OSError):  # (a full disk: until there is room the spool is read as it is)
            if isinstance(file, IpcFile):
                seal(file, path)
            self._files.pop(path, None)
            os.unlink(path + SPOOL)  # noqa: PTH108

    def _open_anyhow(self, path: str) -> StreamFile:
        return SealedFile(path, trusting=True)

    def _replace(self, source: str, target: str) -> None:
        super()._replace(source, target)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target + SPOOL)  # noqa: PTH108

    def _nothing(self) -> tuple[type[LabError], ...]:
        return (NotOurs, Unfinished)


class _Spool(IpcFile):
    """A stream that is not in Parquet yet."""

    def refresh(self) -> bool:
        sealed = self.path.removesuffix(SPOOL)
        if self._seen and os.path.isfile(sealed) and is_ours(sealed):  # noqa: PTH113
            return False
        return super().refresh()

    def loose_end(self) -> str | None:
        return "its writer was stopped before it was made a Parquet file"


class _ParquetAppender(IpcAppender):
    """Appends to the spool, and seals it at the end; only then the spool is dropped."""

    def __init__(
        self, path: str, key: Key, spec: Stat, release: Callable[[], None], *, durable: bool
    ) -> None:
        self._sealed = path
        super().__init__(path + SPOOL, key, spec, release, durable=durable)

    def _end(self, meta: Mapping[str, Any]) -> None:
        if self._handle >= 0:
            super()._end(meta)
        if os.path.lexists(self._path):
            seal(IpcFile(self._path), self._sealed, durable=self._durable)
            os.unlink(self._path)  # noqa: PTH108
        if self._durable:
            media.sync_folder(os.path.dirname(self._path))  # noqa: PTH120
