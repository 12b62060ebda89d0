"""Finding nodes in a Zarr hierarchy by listing folders and reading ``zarr.json`` directly.

zarr's own ``keys()`` and ``members()`` are some 300 times slower, which a tree browser feels.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from datastore_lab.engines.zarr.meta import (
    ARRAYS,
    KIND,
    METADATA,
    NAME,
    ArrayDoc,
    escape,
    parse,
    parse_array,
    unescape,
    user_meta,
)
from datastore_lab.errors import AlreadyExists, Corrupt, Foreign, LabError, NotFound
from datastore_lab.folders import files
from datastore_lab.folders.overlay import Overlay
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, GROUP, Stat, default_dims
from datastore_lab.records import ARRAYS as ARRAYS_KIND

Parts = tuple[str, ...]
"""Folder names from the root down; a key is the same with names for people."""


class Node(NamedTuple):
    """A group: where it is, and its parsed metadata."""

    parts: Parts
    doc: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes, those of the layout included."""
        return self.doc["attributes"]  # type: ignore[no-any-return]

    @property
    def is_record(self) -> bool:
        """Whether this package wrote a record here."""
        return bool(self.attributes.get(KIND, GROUP) != GROUP)


class Tree:
    """The nodes of a hierarchy as they are, or will be after the pending changes.

    Parameters
    ----------
    root : str
        Absolute path of the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.overlay = Overlay(root, "zarr.json")

    def reset(self) -> None:
        """Forget the pending changes."""
        self.overlay = Overlay(self.root, "zarr.json")

    # -- one node ----------------------------------------------------------------------------------

    def doc(self, parts: Parts) -> dict[str, Any] | None:
        """Read the metadata of a group or array; None if there is none."""
        path = self.overlay.path((*parts, METADATA))
        if path is None:
            return None
        try:
            raw = files.read(path, self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError as error:
            raise Corrupt(f"{path!r} is a folder where metadata should be; remove it", key=path) from error
        return parse(raw, path)

    def locate(self, key: Key) -> Parts | None:
        """Turn a key into folder names, None if there is no such folder."""
        parts: Parts = ()
        for part in key:
            found = next((name for name in _spellings(part) if self._is_folder((*parts, name))), None)
            if found is None:
                return None
            parts = (*parts, found)
        return parts

    def _is_folder(self, parts: Parts) -> bool:
        path = self.overlay.path(parts)
        if path is None:
            return False
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(mode):
            files.refuse_outside(path, self.root)
            return os.path.isdir(path)
        return stat.S_ISDIR(mode)

    def find(self, key: Key) -> Node | None:
        """Give the group at a key, None if there is none."""
        parts = self.locate(key)
        doc = None if parts is None else self.doc(parts)
        if parts is None or doc is None or doc["node_type"] != "group":
            return None
        return Node(parts, doc)

    def node(self, key: Key) -> Node:
        """Give the group at a key, or raise `NotFound`."""
        node = self.find(key)
        if node is None:
            raise NotFound(f"there is nothing at {show(key)!r}", key=key)
        return node

    # -- the arrays of a node ----------------------------------------------------------------------

    def array_names(self, node: Node) -> dict[str, str]:
        """Map the names of a node's arrays to those of their folders."""
        listed = node.attributes.get(ARRAYS)
        if node.is_record and isinstance(listed, list):
            if any(not isinstance(name, str) or not name for name in listed):
                raise Corrupt(f"the list of arrays of {node.parts!r} is damaged: {listed!r}", key=node.parts)
            return {name: escape(name) for name in listed}
        found = {}
        for folder in sorted(self.overlay.names(node.parts)):
            doc = self._doc_or_none((*node.parts, folder))
            if doc is not None and doc["node_type"] == "array" and (name := _name_of(folder, doc)):
                found[name] = folder
        return found

    def _doc_or_none(self, parts: Parts) -> dict[str, Any] | None:
        """Read metadata where other items must stay readable whatever this one holds."""
        if parts[-1] == METADATA or not self._is_inside_folder(parts):
            return None
        try:
            return self.doc(parts)
        except LabError:
            return None

    def _is_inside_folder(self, parts: Parts) -> bool:
        try:
            return self._is_folder(parts)
        except LabError:
            return False

    def array(self, node: Node, name: str, folder: str) -> ArrayDoc:
        """Read the metadata of one array."""
        parts = (*node.parts, folder)
        where = self.overlay.path(parts) or os.path.join(self.root, *parts)
        doc = self.doc(parts) if self._is_folder(parts) else None
        if doc is None or doc["node_type"] != "array":
            raise Corrupt(
                f"the array {name!r} in {where!r} is missing; restore it or delete the item", key=where
            )
        return parse_array(doc, name, where)

    def array_of(self, key: Key, name: str) -> tuple[Node, str, ArrayDoc]:
        """Find an array of a node: the node, the array's folder, and its metadata."""
        node = self.node(key)
        names = self.array_names(node)
        if name not in names:
            raise NotFound(f"{show(key)!r} has no array {name!r}; it has {sorted(names)}", key=key)
        return node, names[name], self.array(node, name, names[name])

    def identity(self, key: Key, name: str) -> object:
        """Give something that changes when an array is replaced, but not when it grows."""
        node, folder, doc = self.array_of(key, name)
        path = self.overlay.path((*node.parts, folder)) or ""
        return (os.stat(path).st_ino, doc.shape[1:], doc.attributes)

    # -- the tree ----------------------------------------------------------------------------------

    def stat(self, key: Key) -> Stat:
        """Describe a node."""
        node = self.node(key)
        docs = {name: self.array(node, name, folder) for name, folder in self.array_names(node).items()}
        kind = node.attributes.get(KIND) or (ARRAYS_KIND if docs else GROUP)
        meta = user_meta(node.attributes)
        own = {name: attributes for name, doc in docs.items() if (attributes := doc.user_attributes())}
        if own:
            meta[ARRAY_ATTRIBUTES] = {**meta.get(ARRAY_ATTRIBUTES, {}), **own}
        return Stat(str(kind), {name: doc.info() for name, doc in docs.items()}, meta)

    def candidates(self, key: Key) -> tuple[Parts, list[str]]:
        """Give the names in a node's folder that may be children, in alphabetic order."""
        node = self.node(key)
        arrays = set(self.array_names(node).values()) if node.is_record else set()
        return node.parts, sorted(
            name for name in self.overlay.names(node.parts) if name not in {METADATA, *arrays}
        )

    def child_name(self, parts: Parts, folder: str) -> str | None:
        """Give the name of a child node by its folder; None if that is no group."""
        try:
            if not self._is_folder((*parts, folder)):
                return None
            doc = self.doc((*parts, folder))
        except LabError:  # it is listed, so that asking for it tells what is wrong with it
            return unescape(folder) or folder
        return None if doc is None or doc["node_type"] != "group" else _name_of(folder, doc)

    def keys(self, key: Key) -> Iterator[Key]:
        """Yield the keys of all records at or below a key; damaged nodes are among them."""
        node = self.node(key)
        yield from self._walk(key, node)

    def _walk(self, key: Key, node: Node) -> Iterator[Key]:
        if node.is_record or (KIND not in node.attributes and self.array_names(node)):
            yield key
        parts, names = node.parts, self.candidates_of(node)
        for folder in names:
            name = self.child_name(parts, folder)
            if name is None:
                continue
            child = (*parts, folder)
            doc = self._doc_or_none(child)
            if doc is None:
                yield (*key, name)
            else:
                yield from self._walk((*key, name), Node(child, doc))

    def candidates_of(self, node: Node) -> list[str]:
        """Give the folder names in a node that may be children."""
        arrays = set(self.array_names(node).values()) if node.is_record else set()
        return sorted(name for name in self.overlay.names(node.parts) if name not in {METADATA, *arrays})

    def walk(self, parts: Parts) -> Iterator[tuple[Parts, dict[str, Any]]]:
        """Yield the folders and metadata of all groups and arrays at or below a place; damage is left out."""
        doc = self.doc(parts) if not parts else self._doc_or_none(parts)
        if doc is None:
            return
        yield parts, doc
        if doc["node_type"] == "group":
            for name in sorted(self.overlay.names(parts)):
                if name != METADATA:
                    yield from self.walk((*parts, name))

    # -- names -------------------------------------------------------------------------------------

    def check_names(self, key: Key, names: set[str]) -> None:
        """Keep the names of a node's arrays, dimensions and children distinct."""
        for depth, part in enumerate(key):
            parent = self.find(key[:depth])
            if parent is None:
                break
            if part in self._taken(parent, part):
                raise AlreadyExists(
                    f"{show(key[:depth])!r} has an array or dimension named {part!r}", key=key
                )
        for name in sorted(names):
            if self.find((*key, name)) is not None:
                raise AlreadyExists(f"{show(key)!r} has a child named {name!r}", key=key)

    def _taken(self, node: Node, part: str) -> set[str]:
        """Give the names of a node's arrays and named dimensions, as far as they may equal `part`."""
        if not node.is_record:  # a group of another program may have thousands of members: ask for the one
            doc = next(
                (doc for name in _spellings(part) if (doc := self._doc_or_none((*node.parts, name)))), None
            )
            return {part} if doc is not None and doc["node_type"] == "array" else set()
        taken = set()
        for name, folder in self.array_names(node).items():
            dims = self.array(node, name, folder).dims
            taken |= {name, *set(dims).difference(default_dims(name, len(dims)))}
        return taken


def _spellings(part: str) -> list[str]:
    """Give the folder names that a part may have: ours, and that of another program."""
    ours = escape(part)
    if (
        part == ours
        or "/" in part
        or "\0" in part
        or part in {".", "..", METADATA}
        or len(part.encode()) > 255
    ):
        return [ours]
    return [ours, part] if unescape(part) == part else [ours]


def _name_of(folder: str, doc: dict[str, Any]) -> str | None:
    """Give the name that a folder stands for; None for one that is no text."""
    try:
        folder.encode()
    except UnicodeEncodeError:
        return None
    name = unescape(folder)
    if name is not None:
        return name
    full = doc["attributes"].get(NAME)
    return full if isinstance(full, str) and full and escape(full) == folder else folder


def check_place(root: str, mode: str) -> bool:
    """Refuse a place that is no Zarr store or does not suit the mode; True if the store is to be made.

    Raises
    ------
    NotFound, AlreadyExists, Foreign, Corrupt
    """
    if not os.path.lexists(root):
        if mode in {"r", "r+"} or not os.path.isdir(os.path.dirname(root)):
            missing = root if mode in {"r", "r+"} else os.path.dirname(root)
            raise NotFound(
                f"there is no folder {missing!r}; mode 'a' makes a store in a folder that exists", key=root
            )
        return True
    if mode == "x":
        raise AlreadyExists(
            f"{root!r} exists already; open it with mode 'a', or choose another name", key=root
        )
    if not os.path.isdir(root):
        raise Foreign(f"{root!r} is a file, where a Zarr store is a folder", key=root)
    return _check_folder(root, mode)


def _check_folder(root: str, mode: str) -> bool:
    doc = Tree(root).doc(())
    if doc is not None:
        if doc["node_type"] == "array":
            raise Foreign(
                f"{root!r} is a single Zarr array, not a hierarchy; open the folder around it", key=root
            )
        return False
    names = set(os.listdir(root))
    if names & {".zgroup", ".zarray", ".zattrs", ".zmetadata"}:
        raise Foreign(
            f"{root!r} is a Zarr store of version 2; only version 3 is read: convert a copy of it", key=root
        )
    if names:
        raise Foreign(
            f"{root!r} is a folder but no Zarr store: it has no {METADATA}; choose another place", key=root
        )
    if mode in {"r", "r+"}:
        raise NotFound(f"the folder {root!r} is empty; mode 'a' makes a store in it", key=root)
    return True
