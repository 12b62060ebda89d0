"""Records in a Zarr v3 hierarchy in a local folder, with transactions.

A record is a group, its arrays are arrays in it, its children are subgroups: ``zarr.open_group``,
``xarray.open_datatree(path, engine="zarr")`` and any other Zarr v3 reader open it as it is. Changes go
through the redo log of `datastore_lab.folders.log`, in the folder ``<path>-journal``, which is there
only while the store is open for writing or after a crash.

A reader in another process needs no lock. Its every call sees one committed state: it waits while a commit is
carried out (some ms), carries out itself what a dead writer left, and starts again if what it read was
replaced meanwhile. Three things remain. Two calls may see two states. A list of keys that takes longer than
the time between two commits may, after five attempts, mix states. And programs that know nothing of the
journal may, in these ms, miss an item that is being replaced or see a stream's arrays differ in length.

While the store is open for writing, xarray wants ``consolidated=False`` and zarr's own ``keys()`` are slow: a
copy of all metadata in the root, which speeds them up, would be out of date. It is written at `close`, for
stores of up to 1,000 nodes, and dropped by the first change.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from datastore_lab.engines.zarr.append import ZarrAppender
from datastore_lab.engines.zarr.change import Changes
from datastore_lab.engines.zarr.meta import METADATA
from datastore_lab.engines.zarr.opening import check_place, layout_of
from datastore_lab.engines.zarr.places import FolderPlace
from datastore_lab.engines.zarr.read import read_array
from datastore_lab.engines.zarr.recent import FolderTree
from datastore_lab.engines.zarr.repair import mend
from datastore_lab.engines.zarr.verify import Finding, findings
from datastore_lab.folders.engine import FolderEngine
from datastore_lab.folders.session import Session
from datastore_lab.keys import Key, check
from datastore_lab.records import Problem, Record, Repair, Selection, Stat, Traits, check_durability, gather

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ZarrEngine(FolderEngine[Changes, ZarrAppender]):
    """A tree of records in a folder, in Zarr's format of version 3.

    Parameters
    ----------
    path : str or path-like
        The folder; its parent must exist.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``w`` empties a Zarr store, and refuses a folder that is none.
    timeout : float, default 0.0
        How long to wait for another writer, in seconds.
    durability : {"disk", "process"}
        What a commit survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     engine = ZarrEngine(folder + "/data.zarr", "w")
    ...     engine.write(("a",), Record("array", {"data": np.arange(3)}, {"unit": "V"}, {}))
    ...     engine.read(("a",), "data", (slice(1, None),))
    ...     engine.close()
    array([1, 2])
    """

    traits: ClassVar[Traits] = Traits(
        label="Zarr",
        structure="hierarchy",
        compresses=True,
        appends=True,
        hierarchical=True,
        n_dimensional=True,
        self_describing=True,
        parallel_write=False,
        cloud=True,
        opens_in=("zarr-python", "xarray", "TensorStore", "zarrita.js", "Zarr.jl", "GDAL"),
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
    ) -> None:
        durable = check_durability(durability)
        self._tree = FolderTree(FolderPlace(os.path.realpath(os.fspath(path))))
        session = Session(self._tree.root, mode, METADATA, self._tree, durable=durable)
        super().__init__(session, Changes(self._tree, session.log), ZarrAppender)
        session.open(check_place, self._changes.start, timeout)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def layout(self) -> int | None:
        return self._session.consistent(lambda: layout_of(self._tree))

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        prefix = check(prefix)
        yield from self._session.consistent(lambda: list(self._tree.keys(prefix)), listing=True)

    def children(self, prefix: Key = ()) -> Iterator[str]:
        prefix = check(prefix)
        parts, names = self._session.consistent(lambda: self._tree.candidates(prefix), listing=True)
        seen = set()
        for name in names:
            with self._session.lock:
                child = self._tree.child_name(parts, name)
            if child is not None and child not in seen:
                seen.add(child)
                yield child

    def stat(self, key: Key) -> Stat:
        key = check(key)
        return self._session.consistent(lambda: self._tree.stat(key))

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        key = check(key)
        return self._session.consistent(
            lambda: read_array(self._tree, key, name, selection),
            proof=lambda: self._tree.identity(key, name),
        )

    def read_whole(self, key: Key) -> Record:
        key = check(key)
        return self._session.consistent(
            lambda: gather(self._tree.stat(key), functools.partial(read_array, self._tree, key)),
            proof=lambda: self._tree.fingerprint(key),  # of the data: what was described was so at one moment
        )

    def fingerprint(self, key: Key) -> str:
        key = check(key)
        look = functools.partial(self._tree.fingerprint, key)
        return self._session.consistent(look, proof=look)

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for finding in self._findings(check(key)):
            yield finding.problem

    def _findings(self, key: Key) -> Iterator[Finding]:
        for found in self._session.consistent(lambda: [at for at, _ in self._tree.nodes(key)], listing=True):
            yield from self._session.consistent(functools.partial(self._find, found))

    def _find(self, key: Key) -> list[Finding]:
        return list(findings(self._tree, key))

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        key = check(key)
        if not key and (left := self.compact()):
            yield Repair(
                (), None, f"{left:,} bytes that a crash had left in the journal were removed", mended=True
            )
        for found in list(self._findings(key)):
            with self._session.change():
                done = mend(self._changes, found, accept=accept)
            yield done

    # -- changes ---------------------------------------------------------------------------------

    def compact(self) -> int:
        with self._session.change():
            return 0 if self._session.depth > 1 else self._session.compact()

    def close(self) -> None:
        self._session.close(self._changes.consolidate)
