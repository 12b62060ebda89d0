"""Changes of a Zarr hierarchy: staged as files and folders, and noted in the overlay."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.meta import (
    ARRAYS,
    CHECKSUM,
    DTYPE,
    KIND,
    METADATA,
    NAME,
    ArrayDoc,
    changed,
    escape,
    group_json,
    new_array,
    to_json,
    unescape,
)
from datastore_lab.engines.zarr.types import stored_type, to_stored
from datastore_lab.errors import AlreadyExists, BadKey, EngineError, NotStorable
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, GROUP, Record, Stat, check_record, dims_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.tree import Node, Parts, Tree
    from datastore_lab.folders.log import TreeLog

_CONSOLIDATED = 1000
_STREAM = 1 << 20
_STREAM_SECONDS = 4.0


class Changes:
    """Everything that a writer does to a tree; nothing is done before the log's commit.

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
        self.put_file((METADATA,), group_json({}))

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key."""
        check_record(record)
        _check_meta(record.meta)
        refuse_root(key)
        arrays = {name: np.asarray(array) for name, array in record.arrays.items()}
        for array in arrays.values():
            dtypes.check(array.dtype)
        self.tree.check_names(key, {*arrays, *itertools.chain.from_iterable(record.dims.values())})
        own, meta = _split_attributes(record.meta, set(arrays))
        docs = {
            name: _plan(name, array, dims_of(record, name), own.get(name, {}))
            for name, array in arrays.items()
        }
        self._put_record(key, record.kind, meta, docs, arrays)

    def begin(self, key: Key, spec: Stat) -> None:
        """Put an empty record that will grow."""
        node = self.tree.find(key)
        if node is not None and self.tree.stat(key).kind != GROUP:
            raise AlreadyExists(f"there is a record at {show(key)!r} already", key=key)
        arrays = {
            name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype))
            for name, info in spec.arrays.items()
        }
        check_record(
            Record(spec.kind, arrays, spec.meta, {name: info.dims for name, info in spec.arrays.items()})
        )
        _check_meta(spec.meta)
        refuse_root(key)
        self.tree.check_names(
            key, {*arrays, *itertools.chain.from_iterable(info.dims for info in spec.arrays.values())}
        )
        own, meta = _split_attributes(spec.meta, set(arrays))
        docs = {name: _plan_stream(name, arrays[name], spec, own.get(name, {})) for name in arrays}
        self._put_record(key, spec.kind, meta, docs, arrays)

    def update(self, key: Key, meta: Mapping[str, Any]) -> None:
        """Merge into the attributes of a node."""
        _check_meta(meta)
        node = self.tree.node(key)
        merged = dict(meta)
        if ARRAY_ATTRIBUTES in meta:
            names = self.tree.array_names(node)
            own, merged = _split_attributes(meta, set(names))
            for name, folder in names.items():
                self._set_array_attributes((*node.parts, folder), own.get(name, {}))
            node.attributes.pop(ARRAY_ATTRIBUTES, None)
        self._put_doc(node, {**node.attributes, **merged})

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        refuse_root(old)
        refuse_root(new)
        node = self.tree.node(old)
        if new[: len(old)] == old:
            raise BadKey(f"{show(old)!r} can't be moved into itself, to {show(new)!r}", key=new)
        if self.tree.find(new) is not None:
            raise AlreadyExists(f"there is something at {show(new)!r} already", key=new)
        self.tree.check_names(new, set())
        parent = self._make(new[:-1])
        target = (*parent, escape(new[-1]))
        self.tree.overlay.move(node.parts, target)
        full = {NAME: new[-1]} if unescape(target[-1]) is None else {}
        attributes = {name: value for name, value in node.attributes.items() if name != NAME}
        if full or len(attributes) < len(node.attributes):
            self._put_doc(node._replace(parts=target), {**attributes, **full})
        self._forget_copies(old)

    def delete(self, key: Key) -> None:
        """Delete a node with everything below."""
        refuse_root(key)
        self.tree.overlay.remove(self.tree.node(key).parts)
        self._forget_copies(key)

    def consolidate(self) -> None:
        """Put a copy of all metadata into the root, for readers that would else warn and look for each.

        Only of small trees: whoever opens the root reads all of it, and every session writes it again.
        """
        copies: dict[str, Any] = {}
        for parts, doc in itertools.islice(self.tree.walk(()), _CONSOLIDATED + 1):
            plain = {name: value for name, value in doc.items() if name != "consolidated_metadata"}
            copies["/".join(parts)] = {**plain, "attributes": media.tag_floats(doc["attributes"])}
        root = copies.pop("")
        if len(copies) < _CONSOLIDATED:
            inline = {"kind": "inline", "must_understand": False, "metadata": copies}
            self.put_file((METADATA,), to_json({**root, "consolidated_metadata": inline}))

    # -- how ---------------------------------------------------------------------------------------

    def put_file(self, parts: Parts, *buffers: Any) -> None:
        """Stage a file for a place in the tree."""
        path = self.log.new()
        self.log.write(path, *buffers)
        self.tree.overlay.put(parts, path)

    def _put_doc(self, node: Node, attributes: Mapping[str, Any]) -> None:
        self.put_file((*node.parts, METADATA), changed(node.doc, attributes=attributes))

    def _put_record(
        self,
        key: Key,
        kind: str,
        meta: Mapping[str, Any],
        docs: dict[str, ArrayDoc],
        arrays: dict[str, NDArray[Any]],
    ) -> None:
        layout = {KIND: kind, ARRAYS: list(arrays)}
        node = self.tree.find(key)
        if node is None:
            place, folder = self._stage_path(key, {**layout, **meta})
            for name, array in arrays.items():
                self._stage_array(os.path.join(folder, escape(name)), array, docs[name])
            self.tree.overlay.put(*place)
        else:
            staged = {
                escape(name): self._stage_array(self.log.new(), array, docs[name])
                for name, array in arrays.items()
            }
            for folder in self._own_folders(node):
                self.tree.overlay.remove((*node.parts, folder))
            for folder, path in staged.items():
                self.tree.overlay.put((*node.parts, folder), path)
            full = {NAME: node.attributes[NAME]} if NAME in node.attributes else {}
            self._put_doc(node, {**layout, **full, **meta})
        self._forget_copies(key)

    def _own_folders(self, node: Node) -> list[str]:
        """List the array folders of a node that are there, those that it lists and lacks left out."""
        present = set(self.tree.overlay.names(node.parts))
        return [folder for folder in self.tree.array_names(node).values() if folder in present]

    def _stage_path(self, key: Key, attributes: Mapping[str, Any]) -> tuple[tuple[Parts, str], str]:
        """Stage the missing groups down to a key as one folder; gives what to put where, and the last."""
        depth = next(depth for depth in range(len(key), -1, -1) if self.tree.find(key[:depth]) is not None)
        above = self.tree.node(key[:depth]).parts
        top = folder = self.log.new()
        for level in range(depth, len(key)):
            folder = top if level == depth else os.path.join(folder, escape(key[level]))
            name = {NAME: key[level]} if unescape(escape(key[level])) is None else {}
            self.log.make_folder(folder)
            own = attributes if level == len(key) - 1 else {}
            self.log.write(os.path.join(folder, METADATA), group_json({**name, **own}))
        return ((*above, escape(key[depth])), top), folder

    def _stage_array(self, folder: str, array: NDArray[Any], doc: ArrayDoc) -> str:
        self.log.make_folder(folder)
        stored = to_stored(array, doc)
        for name, piece in chunking.pieces(stored, doc):
            self.log.write(os.path.join(folder, name), *chunking.pack(piece, doc.packing))
        self.log.write(os.path.join(folder, METADATA), doc.to_json())
        return folder

    def _make(self, key: Key) -> Parts:
        """Make the groups down to a key; gives its folder names."""
        if self.tree.find(key) is None:
            place, _ = self._stage_path(key, {})
            self.tree.overlay.put(*place)
        return self.tree.node(key).parts

    def _set_array_attributes(self, parts: Parts, attributes: Mapping[str, Any]) -> None:
        doc = self.tree.doc(parts)
        if doc is None:
            raise EngineError(f"the array {parts!r} is missing", key=parts)
        layout = {
            name: doc["attributes"][name] for name in (NAME, DTYPE, CHECKSUM) if name in doc["attributes"]
        }
        if doc["attributes"] != {**attributes, **layout}:
            self.put_file((*parts, METADATA), changed(doc, attributes={**attributes, **layout}))

    def _forget_copies(self, key: Key) -> None:
        """Drop consolidated metadata above a change: other readers would believe the old copy."""
        for depth in range(len(key)):
            node = self.tree.find(key[:depth])
            if node is not None and node.doc.get("consolidated_metadata") is not None:
                self._put_doc(node, node.attributes)


def refuse_root(key: Key) -> None:
    """Raise for the root, where no record may be."""
    if not key:
        raise BadKey("the root holds no record and can't be moved or deleted; give a name", key=key)


def _check_meta(meta: Mapping[str, Any]) -> None:
    media.check_json(meta)
    per_array = meta.get(ARRAY_ATTRIBUTES)
    for attributes in (meta, *(per_array.values() if isinstance(per_array, Mapping) else ())):
        names = attributes if isinstance(attributes, Mapping) else ()
        if taken := sorted({KIND, ARRAYS, NAME, DTYPE, CHECKSUM}.intersection(names)):
            raise BadKey(
                f"the attribute {sorted(taken)[0]!r} belongs to the layout; choose another name",
                key=sorted(taken)[0],
            )


def _split_attributes(
    meta: Mapping[str, Any], arrays: set[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Separate the attributes of arrays from those of the node, where what fits no array stays."""
    if ARRAY_ATTRIBUTES not in meta:
        return {}, dict(meta)
    given = meta[ARRAY_ATTRIBUTES]
    if not isinstance(given, Mapping):
        raise NotStorable(
            f"{ARRAY_ATTRIBUTES!r} must be a mapping of array names to attributes", key=ARRAY_ATTRIBUTES
        )
    own = {
        name: dict(value)
        for name, value in given.items()
        if name in arrays and isinstance(value, Mapping) and value
    }
    rest = {name: value for name, value in given.items() if name not in own}
    kept = {name: value for name, value in meta.items() if name != ARRAY_ATTRIBUTES}
    return own, {**kept, **({ARRAY_ATTRIBUTES: rest} if rest or not own else {})}


def _plan(name: str, array: NDArray[Any], dims: tuple[str, ...], attributes: Mapping[str, Any]) -> ArrayDoc:
    """Decide how an array is stored."""
    stored = stored_type(array.dtype)
    if array.dtype.kind == "U" and array.size and not _is_text(array):
        stored = stored_type(array.dtype, as_bytes=True)
    itemsize = array.dtype.itemsize or 1
    chunks = chunking.choose_chunks(array.shape, itemsize)
    doc = new_array(
        name,
        array.dtype,
        array.shape,
        dims,
        chunks,
        stored=stored,
        packing="",
        attributes={**attributes, CHECKSUM: media.checksum(array)},
    )
    packing = (
        "zstd" if doc.is_text else chunking.choose_packing(array if doc.as_bytes else to_stored(array, doc))
    )
    return doc._replace(packing=packing)


def _is_text(array: NDArray[Any]) -> bool:
    """Tell whether fixed-width text holds only code points that UTF-8 can say."""
    points = (
        np.ascontiguousarray(array)
        .reshape(-1)
        .view(array.dtype.byteorder.replace("=", "<").replace("|", "<") + "u4")
    )
    return not bool(((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any())


def _plan_stream(name: str, empty: NDArray[Any], spec: Stat, attributes: Mapping[str, Any]) -> ArrayDoc:
    """Decide how a growing array is stored.

    Some seconds of data per chunk, of 256 KiB to 8 MiB: the last, partial chunk is written again at every
    flush, and every chunk is a file. Always compressed: the empty part of the last chunk costs nothing.
    """
    info = spec.arrays[name]
    row = max(math.prod(empty.shape[1:]) * max(empty.dtype.itemsize, 1), 1)
    rate = spec.meta.get("rate")
    target: float = _STREAM
    if isinstance(rate, (int, float)) and 0 < rate < 1e12:
        target = min(max(rate * row * _STREAM_SECONDS, 256 << 10), 8 << 20)
    chunks = info.chunks or (max(1, int(target) // row), *(max(1, length) for length in empty.shape[1:]))
    return new_array(
        name,
        empty.dtype,
        empty.shape,
        tuple(info.dims),
        chunks,
        stored=stored_type(empty.dtype),
        packing="zstd",
        attributes=attributes,
    )
