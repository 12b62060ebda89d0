"""Streams in CSV files, one file per stream: for appending and reading.

Beside each table ``run.<stream>.csv`` lies ``run.<stream>.csv.json``, which says types, dimensions,
attributes, how many rows count, and sums. The table alone opens everywhere; together they give back every
bit.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from datastore_lab.errors import NotFound
from datastore_lab.records import Traits
from datastore_lab.streams import disk
from datastore_lab.streams.names import NotOurs
from datastore_lab.streams.text import sidecar
from datastore_lab.streams.text.engine import TextEngine
from datastore_lab.streams.text.foreign import ForeignTable
from datastore_lab.streams.text.read import TextFile

if TYPE_CHECKING:
    from datastore_lab.streams.protocols import StreamFile


class CSVEngine(TextEngine):
    """Streams in CSV files that share the beginning of their names.

    Nothing that was written is ever changed: `write`, `update`, `move` and `delete` raise `ReadOnly`. A CSV
    file without a sidecar opens for reading, with types only where all of a column is clearly of that type.

    Parameters
    ----------
    path : path-like
        ``data/run.csv``: the file itself, if there is one, and all ``data/run.<stream>.csv``.
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
    >>> engine = CSVEngine(pathlib.Path(folder.name) / "run.csv")
    >>> x, m = ArrayInfo("<f8", (0,), ("t",), 0, None), ArrayInfo("<i4", (0, 2), ("t", "c"), 0, None)
    >>> appender = engine.append(("daq",), Stat("stream", {"x": x, "m": m}, {}))
    >>> appender.extend({"x": np.array([0.1, np.nan]), "m": np.eye(2, dtype="i4")}); appender.close({})
    >>> print((pathlib.Path(folder.name) / "run.daq.csv").read_text(), end="")
    x,m[0],m[1]
    0.1,1,0
    nan,0,1
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="CSV",
        structure="rows of text",
        compresses=False,
        appends=True,
        hierarchical=False,
        n_dimensional=False,
        self_describing=False,
        parallel_write=True,
        cloud=True,
        opens_in=("Excel", "pandas", "Polars", "MATLAB", "Origin", "Igor", "R", "text editors"),
    )

    def _read_file(self, path: str) -> StreamFile:
        if b'"lab_' in _start(sidecar.place(path)):
            return TextFile(path)
        if path != self.url:
            raise NotOurs(f"{path!r} has no sidecar of this package", key=path)
        if not os.path.exists(path):  # noqa: PTH110
            raise NotFound(f"there is no {path!r}", key=path)
        return ForeignTable(path)

    def _recover(self, path: str) -> None:
        """Cut off the lines that were never acknowledged, for other programs."""
        file = self._look(path)
        if isinstance(file, TextFile) and not file.closed:
            file.cut()


def _start(path: str) -> bytes:
    try:
        return disk.read(path, 0, 1 << 16)
    except OSError:
        return b""
