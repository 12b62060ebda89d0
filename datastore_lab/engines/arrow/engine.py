"""Streams in Arrow files: for appending and reading.

An Arrow file has one schema, so every stream has a file of its own: the store ``data/run.arrow`` is the
files ``data/run.camera.arrow``, ``data/run.daq.arrow`` and so on beside it. Opened under its own name each
of them is a store of that one stream. ``pyarrow.ipc.open_file``, ``pyarrow.feather``, Polars and others open
them as they are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from datastore_lab import media
from datastore_lab.engines.arrow.foreign import ForeignFile
from datastore_lab.engines.arrow.salvage import salvage
from datastore_lab.errors import Corrupt, LabError
from datastore_lab.records import Stat, Traits
from datastore_lab.streams import disk
from datastore_lab.streams.engine import StreamsEngine
from datastore_lab.streams.ipc import head
from datastore_lab.streams.ipc.read import IpcFile, Unfinished
from datastore_lab.streams.ipc.write import IpcAppender
from datastore_lab.streams.kinds import said
from datastore_lab.streams.names import NotOurs

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.streams.protocols import StreamFile

_GLIMPSE = 4096
_OURS = (b"lab_layout", b"lab_kind", b"lab_sum", b"lab_batch")


class ArrowEngine(StreamsEngine):
    """Streams in Arrow files that share the beginning of their names.

    Nothing that was written is ever changed: `write`, `update`, `move` and `delete` raise `ReadOnly`.

    Parameters
    ----------
    path : path-like
        ``data/run.arrow``: the file itself, if there is one, and all ``data/run.<stream>.arrow``.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``"w"`` deletes the files of the store.
    timeout : float, default 0.0
        How long to wait for another writer of the same stream, in seconds.
    durability : {"disk", "process"}
        What a flush survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from datastore_lab.records import ArrayInfo, Stat
    >>> folder = tempfile.TemporaryDirectory()
    >>> engine = ArrowEngine(pathlib.Path(folder.name) / "run.arrow")
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    >>> appender = engine.append(("daq",), spec)
    >>> appender.extend({"x": np.arange(3.0)}); appender.close({"lost": 0})
    >>> engine.read(("daq",), "x", (slice(1, None),)), engine.stat(("daq",)).meta
    (array([1., 2.]), {'lost': 0})
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="Arrow",
        structure="one table per stream",
        compresses=False,
        appends=True,
        hierarchical=False,
        n_dimensional=True,
        self_describing=True,
        parallel_write=True,
        cloud=False,
        opens_in=("pyarrow", "pandas", "Polars", "R (by the format)"),
    )

    @classmethod
    def salvage(cls, path: str, target: str) -> str | None:
        """Make a whole file of one whose writer, another program, was stopped before it wrote the index."""
        return salvage(path, target)

    def _read_file(self, path: str) -> StreamFile:
        first = disk.read(path, 0, 16)
        if first.startswith(head.NEXT):
            return ForeignFile(path)
        length = head.length_of(first[8:])
        start = disk.read(path, 0, 8 + length + 4096 if length else 1 << 20)
        if not os.path.getsize(path):  # noqa: PTH202
            raise Unfinished(f"{path!r} is {said(path)}", key=path)
        alike = sum(one == other for one, other in zip(start[:8], head.MAGIC, strict=False))
        if any(name in start for name in _OURS) and alike >= 6:
            return IpcFile(path)
        if len(start) < 16 + length and head.MAGIC.startswith(start[:8]):
            raise Unfinished(
                f"{path!r} ends before its schema: its writer was stopped, or a copy; restore or remove it",
                key=path,
            )
        if alike >= 5 and not start.startswith(head.MAGIC[:6]):
            raise Corrupt(f"the first bytes of {path!r} are not as they were written", key=path)
        return ForeignFile(path)

    def _glimpse(self, key: Key, path: str) -> bool:
        start, end = disk.ends(path, _GLIMPSE, 6)
        whole = start.startswith(head.MAGIC) and end == head.MAGIC[:6]
        return whole and b"lab_kind" in start and b"%s\0" % media.to_json(list(key)).encode() in start

    def _begin(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> IpcAppender:
        return IpcAppender(path, key, spec, release, durable=self._durable)

    def _recover(self, path: str) -> None:
        """Give back the room beyond its end that a killed writer had asked for."""
        with contextlib.suppress(OSError):  # (a file that can't be written has none)
            os.truncate(path, os.path.getsize(path))  # noqa: PTH202

    def _nothing(self) -> tuple[type[LabError], ...]:
        return (NotOurs, Unfinished)
