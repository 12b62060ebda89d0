"""Changes of a store: staged as files and folders, and noted in the overlay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.engines.parquet import parts as parquet
from datastore_lab.engines.parquet.columns import NOTHING, Column, choose, is_text
from datastore_lab.engines.parquet.doc import DESCRIPTION, Array, Doc, Table, escape, to_bytes, unescape
from datastore_lab.engines.parquet.read import open_part
from datastore_lab.integrity import BIRTH, birth
from datastore_lab.records import GROUP, Record, Stat, check_record, dims_of, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from datastore_lab.engines.parquet.checked import Part
    from datastore_lab.engines.parquet.tree import Parts, Tree
    from datastore_lab.folders.log import TreeLog
    from datastore_lab.keys import Key

MAIN = "record"


class Changes:
    """Everything that a writer does to a store; nothing is done before the log's commit.

    Parameters
    ----------
    tree : Tree
        Where the pending changes are noted.
    log : TreeLog
        Where new files and folders are staged.
    """

    def __init__(self, tree: Tree, log: TreeLog) -> None:
        self.tree = tree
        self.log = log

    # -- the operations ----------------------------------------------------------------------------

    def start(self) -> None:
        """Empty the root, or make it."""
        for name in list(self.tree.overlay.names(())):
            self.tree.overlay.remove((name,))
        self.put_file((DESCRIPTION,), to_bytes(Doc(), root=True))

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key."""
        check_record(record)
        arrays = {name: np.asarray(array) for name, array in record.arrays.items()}
        given = {dim for dims in record.dims.values() for dim in dims}
        self._check(key, record.meta, arrays, {*arrays, *given})
        columns = {name: _column(array) for name, array in arrays.items()}
        tables = _tables(columns)
        docs = {name: Array(columns[name], dims_of(record, name), tables.get(name, "")) for name in arrays}
        self._put(key, Doc(record.kind, None, dict(record.meta), docs), arrays)

    def begin(self, key: Key, spec: Stat) -> None:
        """Put an empty record that will grow."""
        parts = self.tree.locate(key)
        if parts is not None and self.tree.doc(parts, key).kind != GROUP:
            raise refusals.record_at(key, self.tree.root)
        empty = no_rows(spec)
        dims = {name: info.dims for name, info in spec.arrays.items()}
        check_record(Record(spec.kind, empty, spec.meta, dims))
        self._check(key, spec.meta, empty, {*empty, *(dim for given in dims.values() for dim in given)})
        # text of fixed width might get rows that UTF-8 can't say: its bytes
        columns = {name: choose(array.dtype, array.shape, as_text=False) for name, array in empty.items()}
        docs = {
            name: Array(column, tuple(dims[name]), "" if column.stored == NOTHING else MAIN)
            for name, column in columns.items()
        }
        tables = {MAIN: Table((), 0)} if any(array.table for array in docs.values()) else {}
        self._put(key, Doc(spec.kind, None, {BIRTH: birth(), **spec.meta}, docs, tables), {})

    def update(self, key: Key, meta: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node."""
        media.check_json(meta)
        node = self.tree.node(key)
        kept = {name: value for name, value in node.doc.meta.items() if name not in drop}
        self.put_doc(node.parts, node.doc._replace(meta={**kept, **meta}))

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        refusals.refuse_root(old, self.tree.root)
        refusals.refuse_root(new, self.tree.root)
        parts = self.tree.require(old)
        if new[: len(old)] == old:
            raise refusals.into_itself(old, new, self.tree.root)
        if self.tree.locate(new) is not None:
            raise refusals.something_at(new, self.tree.root)
        self.tree.check_names(new, set())
        target = (*self._make(new[:-1]), escape(new[-1]))
        was_cut, is_cut = unescape(parts[-1]) is None, unescape(target[-1]) is None
        doc = self.tree.doc(parts, old) if was_cut or is_cut else None
        self.tree.overlay.move(parts, target)
        if doc is not None:
            self.put_doc(target, doc._replace(name=new[-1] if is_cut else None))

    def delete(self, key: Key) -> None:
        """Delete a node with everything below."""
        refusals.refuse_root(key, self.tree.root)
        self.tree.overlay.remove(self.tree.require(key))

    # -- how ---------------------------------------------------------------------------------------

    def put_file(self, parts: Parts, *buffers: Any) -> None:
        """Stage a file for a place in the tree."""
        path = self.log.new()
        self.log.write(path, *buffers)
        self.tree.overlay.put(parts, path)

    def put_doc(self, parts: Parts, doc: Doc) -> None:
        """Stage a new description of a node."""
        self.put_file((*parts, DESCRIPTION), to_bytes(doc, root=not parts))

    def join(self, key: Key, parts: Parts, sources: tuple[Part, ...], name: str) -> Part:
        """Stage one file instead of several, in bounded memory; their names are free afterwards."""
        path = self.log.new()
        files = [lambda one=one: open_part(self.tree, key, parts, one, repr(one.name)) for one in sources]
        joined = parquet.join(self.log, path, name, files)
        for part in sources:
            self.tree.overlay.remove((*parts, part.name))
        self.tree.overlay.put((*parts, name), path)
        return joined

    def _check(
        self, key: Key, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], names: set[str]
    ) -> None:
        media.check_json(meta)
        media.check_json(sorted(names), "names")
        refusals.refuse_root(key, self.tree.root)
        for array in arrays.values():
            dtypes.check(array.dtype)
        self.tree.check_names(key, names)

    def _put(self, key: Key, doc: Doc, arrays: Mapping[str, NDArray[Any]]) -> None:
        parts = self.tree.locate(key)
        if parts is not None:
            self._replace(parts, doc._replace(name=_full_name(parts[-1], key[-1])), arrays)
            return
        place, folder = self._stage_folders(key)
        doc = self._stage_payload(folder, doc, arrays)
        doc = doc._replace(name=_full_name(escape(key[-1]), key[-1]))
        self.log.write(os.path.join(folder, DESCRIPTION), to_bytes(doc))
        self.tree.overlay.put(*place)

    def _replace(self, parts: Parts, doc: Doc, arrays: Mapping[str, NDArray[Any]]) -> None:
        folder = self.log.new()
        self.log.make_folder(folder)
        doc = self._stage_payload(folder, doc, arrays)
        for name in self.tree.payload(parts):
            self.tree.overlay.remove((*parts, name))
        for part in doc.parts():
            self.tree.overlay.put((*parts, part.name), os.path.join(folder, part.name))
        self.put_doc(parts, doc)

    def _stage_payload(self, folder: str, doc: Doc, arrays: Mapping[str, NDArray[Any]]) -> Doc:
        """Write the tables of a record, each as one file."""
        tables = dict(doc.tables)
        for label in dict.fromkeys(array.table for array in doc.arrays.values() if array.table):
            if label in tables:
                continue
            columns = {n: array.column for n, array in doc.arrays.items() if array.table == label}
            path = os.path.join(folder, f"{label}.parquet")
            part, rows = parquet.write_arrays(self.log, path, f"{label}.parquet", arrays, columns)
            tables[label] = Table((part,), rows)
        return doc._replace(tables=tables)

    def _stage_folders(self, key: Key) -> tuple[tuple[Parts, str], str]:
        """Stage the missing nodes down to a key as one folder; gives what to put where, and the last.

        All but the last have their description; the last one's is for the caller to write.
        """
        depth = next(depth for depth in range(len(key), -1, -1) if self.tree.locate(key[:depth]) is not None)
        above = self.tree.require(key[:depth])
        top = folder = self.log.new()
        for level in range(depth, len(key)):
            name = escape(key[level])
            folder = top if level == depth else os.path.join(folder, name)
            self.log.make_folder(folder)
            if level < len(key) - 1:
                group = to_bytes(Doc(name=_full_name(name, key[level])))
                self.log.write(os.path.join(folder, DESCRIPTION), group)
        return ((*above, escape(key[depth])), top), folder

    def _make(self, key: Key) -> Parts:
        """Make the groups down to a key; gives its folder names."""
        if self.tree.locate(key) is None:
            place, folder = self._stage_folders(key)
            doc = Doc(name=_full_name(escape(key[-1]), key[-1]))
            self.log.write(os.path.join(folder, DESCRIPTION), to_bytes(doc))
            self.tree.overlay.put(*place)
        return self.tree.require(key)


def no_rows(spec: Stat) -> dict[str, NDArray[Any]]:
    """Give the arrays of a stream before its first row."""
    described = spec.arrays.items()
    return {name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype)) for name, info in described}


def _full_name(folder: str, name: str) -> str | None:
    return name if unescape(folder) is None else None


def _column(array: NDArray[Any]) -> Column:
    return choose(array.dtype, array.shape, as_text=array.dtype.kind == "U" and is_text(array))


def _tables(columns: Mapping[str, Column]) -> dict[str, str]:
    """Put arrays of equal numbers of rows into one table; the longest is the main one.

    The others are called by their first array, or by a number where a file system might take two names for
    one.
    """
    groups: dict[int, list[str]] = {}
    for name, column in columns.items():
        if column.stored != NOTHING:
            groups.setdefault(column.rows, []).append(name)
    found: dict[str, str] = {}
    used: set[str] = set()
    for number, rows in enumerate(sorted(groups, reverse=True)):
        label = f"{MAIN}.{media.escape_file(groups[rows][0])}" if number else MAIN
        if label.casefold() in used:
            label = f"{MAIN}.{number}~"
        used.add(label.casefold())
        found |= dict.fromkeys(groups[rows], label)
    return found
