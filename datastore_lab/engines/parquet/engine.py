"""Records in a folder of Parquet files with readable descriptions, with transactions.

A node is a folder; its description is ``lab.yaml`` in it, and the arrays of a record are columns of
``record.parquet`` beside that, which pandas, Polars, DuckDB, R and Spark open as it is. Changes go through
the redo log of `datastore_lab.folders.log`, in the folder ``<path>-journal``, which is there only while the
store is open for writing or after a crash.

A reader in another process needs no lock. What it reads of one item is of one committed state: the
description is replaced as a whole, and proves by checksums that the files are those that it means.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from datastore_lab.engines.parquet.append import ParquetAppender
from datastore_lab.engines.parquet.change import MAIN, Changes
from datastore_lab.engines.parquet.doc import DESCRIPTION, Doc, Table
from datastore_lab.engines.parquet.read import read_array, read_record, verify_node
from datastore_lab.engines.parquet.repair import repair_node
from datastore_lab.engines.parquet.tree import Tree, check_place
from datastore_lab.errors import LabError
from datastore_lab.folders.engine import FolderEngine
from datastore_lab.folders.session import Session
from datastore_lab.keys import Key, check
from datastore_lab.records import Problem, Record, Repair, Selection, Stat, Traits, check_durability

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ParquetFolderEngine(FolderEngine[Changes, ParquetAppender]):
    """A tree of records in a folder, each as Parquet and a description in YAML.

    Parameters
    ----------
    path : str or path-like
        The folder; its parent must exist.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``w`` empties a Parquet folder, and refuses a folder that is none.
    timeout : float, default 0.0
        How long to wait for another writer, in seconds.
    durability : {"disk", "process"}
        What a commit survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import tempfile, numpy as np, pandas as pd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     engine = ParquetFolderEngine(folder + "/lab.parquets", "w")
    ...     engine.write(("a",), Record("array", {"v": np.arange(3)}, {"unit": "V"}, {}))
    ...     engine.read(("a",), "v", (slice(1, None),)).tolist()
    ...     engine.close()
    ...     pd.read_parquet(folder + "/lab.parquets/a/record.parquet")["v"].tolist()
    [1, 2]
    [0, 1, 2]
    """

    traits: ClassVar[Traits] = Traits(
        label="Parquet folder",
        structure="tree of tables",
        compresses=True,
        appends=True,
        hierarchical=True,
        n_dimensional=True,
        self_describing=True,
        parallel_write=False,
        cloud=False,
        opens_in=(
            "pandas",
            "Polars",
            "pyarrow",
            "DuckDB",
            "R (by the format)",
            "Spark (by the format)",
            "text editors",
        ),
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
        self._tree = Tree(os.path.realpath(os.fspath(path)))
        session = Session(self._tree.root, mode, DESCRIPTION, self._tree, durable=durable)
        super().__init__(session, Changes(self._tree, session.log), ParquetAppender)
        session.open(check_place, self._changes.start, timeout)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def layout(self) -> int | None:
        return self._session.consistent(self._tree.layout)

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        prefix = check(prefix)
        yield from self._session.consistent(lambda: list(self._tree.keys(prefix)), listing=True)

    def children(self, prefix: Key = ()) -> Iterator[str]:
        prefix = check(prefix)
        parts, folders = self._session.consistent(lambda: self._tree.folders(prefix), listing=True)
        for folder in folders:
            with self._session.lock:
                child = self._tree.child_name(parts, folder)
            if child is not None:
                yield child

    def stat(self, key: Key) -> Stat:
        key = check(key)
        return self._session.consistent(functools.partial(self._tree.describe, key), proven=True)

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        key = check(key)
        return self._session.consistent(lambda: read_array(self._tree, key, name, selection), proven=True)

    def read_whole(self, key: Key) -> Record:
        key = check(key)
        return self._session.consistent(lambda: read_record(self._tree, key), proven=True)

    def fingerprint(self, key: Key) -> str:
        key = check(key)
        look = functools.partial(self._tree.node, key)
        return self._session.consistent(lambda: Doc.fingerprint(look().doc), proven=True)

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for found in self._nodes(key):
            yield from self._session.consistent(functools.partial(self._verify, found), proven=True)

    def _nodes(self, key: Key) -> list[Key]:
        key = check(key)
        return self._session.consistent(lambda: [found for found, _, _ in self._tree.walk(key)], listing=True)

    def _verify(self, key: Key) -> list[Problem]:
        """Check one node, a damaged one whose folder is there included."""
        try:
            _, parts, doc = next(self._tree.walk(key))
        except LabError as error:
            return [Problem(key, None, str(error))]
        return list(verify_node(self._tree, key, parts, doc))

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        for found in self._nodes(key):
            with self._session.change():
                steps = list(repair_node(self._tree, self._changes, found, accept=accept))
            yield from steps

    # -- changes ---------------------------------------------------------------------------------

    def compact(self) -> int:
        """Join what recordings have left in several files, and give back what was left of dead writers."""
        with self._session.change():
            if self._session.depth > 1:
                return 0
            freed = self._session.compact()
            for key in list(self._tree.keys(())):
                if key not in self._streams:
                    freed += self._join(key, None)
        return freed

    def _join(self, key: Key, largest: int | None) -> int:
        """Join the parts of a record, unless they are larger than this or damaged; returns bytes freed."""
        try:
            node = self._tree.node(key)
            sources = node.doc.tables[MAIN].parts
            size = sum(part.size for part in sources)
            if [part.name for part in sources] in ([], [f"{MAIN}.parquet"]) or size > (largest or size):
                return 0
            joined = self._changes.join(key, node.parts, sources, f"{MAIN}.parquet")
        except (LabError, KeyError):  # it stays as it is, for verify and repair
            return 0
        tables = {**node.doc.tables, MAIN: Table((joined,), 0)}
        self._changes.put_doc(node.parts, node.doc._replace(tables=tables))
        return max(size - joined.size, 0)

    def close(self) -> None:
        self._session.close()
