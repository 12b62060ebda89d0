"""Finding nodes in the folder; nothing is read of a node that nobody asks for."""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab import integrity
from datastore_lab.engines.parquet.checked import read_at
from datastore_lab.engines.parquet.doc import (
    DESCRIPTION,
    Doc,
    body_of,
    escape,
    is_payload,
    layout_of,
    looks_like_record,
    parse,
    unescape,
)
from datastore_lab.engines.parquet.text import LONGEST
from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, Foreign, LabError, NotFound
from datastore_lab.folders import files
from datastore_lab.folders.overlay import Overlay
from datastore_lab.keys import Key, show
from datastore_lab.records import GROUP, Stat, default_dims, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator

Parts = tuple[str, ...]
"""Folder names from the root down; a key is the same with names for people."""

_CACHED = 16 << 10


class Node(NamedTuple):
    """A node: where it is, and its description."""

    parts: Parts
    doc: Doc


class Tree:
    """The nodes of a store as they are, or will be after the pending changes.

    Parameters
    ----------
    root : str
        Absolute path of the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.overlay = Overlay(root, DESCRIPTION)

    def reset(self) -> None:
        """Forget the pending changes."""
        self.overlay = Overlay(self.root, DESCRIPTION)

    # -- one node ----------------------------------------------------------------------------------

    def where(self, parts: Parts) -> str:
        """Give the path of something, for messages."""
        return self.overlay.path(parts) or os.path.join(self.root, *parts)

    def raw(self, parts: Parts) -> bytes:
        """Read the description of a node as it lies there.

        Raises
        ------
        Corrupt
            If it is missing, or too long to be one.
        """
        path = self.where((*parts, DESCRIPTION))
        try:
            handle = files.open_inside(path, self.root)
            try:
                if (size := os.fstat(handle).st_size) > 2 * LONGEST:
                    raise Corrupt(f"{path!r} is {size:,} bytes long, more than any description", key=path)
                return read_at(handle, size, 0)
            finally:
                os.close(handle)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise Corrupt(f"the description {path!r} is missing; restore it", key=path) from error

    def doc(self, parts: Parts, key: Key) -> Doc:
        """Read and check the description of a node."""
        body = body_of(self.raw(parts))
        if body is None:
            raise unsealed_error(key, self.where((*parts, DESCRIPTION)), self.root)
        if len(body) > _CACHED:
            return parse(body, self.where((*parts, DESCRIPTION)))
        try:
            return _parsed(body)
        except Corrupt:
            return parse(body, self.where((*parts, DESCRIPTION)))  # again, with the name of the file

    def locate(self, key: Key) -> Parts | None:
        """Turn a key into folder names, None if there is no such node."""
        parts = self._place(key)
        return parts if not parts or self._is_node(parts) else None

    def _place(self, key: Key) -> Parts | None:
        """Turn a key into the names of folders that are there; the last of them may be no node."""
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

    def _is_node(self, parts: Parts) -> bool:
        """Tell a node from a folder of another program; one that has lost its description is still one."""
        path = self.overlay.path((*parts, DESCRIPTION))
        if path is not None and os.path.lexists(path):
            return True
        return any(is_payload(name) or self._is_inner_node((*parts, name)) for name in self._names(parts))

    def _is_inner_node(self, parts: Parts) -> bool:
        return self._is_folder(parts) and self._is_node(parts)

    def _names(self, parts: Parts) -> list[str]:
        try:
            found = self.overlay.names(parts) if self.overlay else os.listdir(self.where(parts))
            return [name for name in found if name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def require(self, key: Key) -> Parts:
        """Give the folder names of a node, or raise `NotFound`."""
        parts = self.locate(key)
        if parts is None:
            raise refusals.nothing_at(key, self.root)
        if not parts and not os.path.isdir(self.root):
            raise EngineError(f"the folder {self.root!r} is gone, or its disk; bring it back", key=self.root)
        return parts

    def layout(self) -> int | None:
        """Give the version of the layout that the root names; None if it is damaged."""
        body = body_of(self.raw(()))
        return None if body is None else integrity.known_layout(layout_of(body, self.root))

    def node(self, key: Key) -> Node:
        """Give a node with its description, whose presence proves that it is one."""
        parts = self._place(key) or self.require(key)
        try:
            return Node(parts, self.doc(parts, key))
        except Corrupt:
            self.require(key)
            raise

    def describe(self, key: Key) -> Stat:
        """Describe a node, in objects of the caller's own."""
        return self.node(key).doc.stat()

    def payload(self, parts: Parts) -> list[str]:
        """List the files in a node that belong to a record, named in its description or not."""
        return [
            name for name in self._names(parts) if is_payload(name) and not self._is_folder((*parts, name))
        ]

    # -- the tree ----------------------------------------------------------------------------------

    def folders(self, key: Key) -> tuple[Parts, list[str]]:
        """Give the names in a node's folder that may be children, in alphabetic order."""
        parts = self.require(key)
        return parts, self._candidates(parts)

    def _candidates(self, parts: Parts) -> list[str]:
        return sorted(name for name in self._names(parts) if name != DESCRIPTION and not is_payload(name))

    def child_name(self, parts: Parts, folder: str) -> str | None:
        """Give the name of a child node by its folder; None if that is no node."""
        inside = (*parts, folder)
        try:
            if not self._is_inner_node(inside):
                return None
            return _name_of(folder, self.doc(inside, inside) if unescape(folder) is None else None)
        except LabError:  # it is listed, so that asking for it tells what is wrong with it
            return _name_of(folder, None)

    def walk(self, key: Key) -> Iterator[tuple[Key, Parts, Doc | LabError]]:
        """Yield all nodes at or below a key, parents first; damaged ones with what is wrong."""
        yield from self._walk(key, self.require(key))

    def _walk(self, key: Key, parts: Parts) -> Iterator[tuple[Key, Parts, Doc | LabError]]:
        try:
            yield key, parts, self.doc(parts, key)
        except LabError as error:
            yield key, parts, error
        for folder in self._candidates(parts):
            name = self.child_name(parts, folder)
            if name is not None:
                try:
                    self._is_folder((*parts, folder))
                except LabError as error:  # a link that leads out
                    yield (*key, name), (*parts, folder), error
                else:
                    yield from self._walk((*key, name), (*parts, folder))

    def keys(self, key: Key) -> Iterator[Key]:
        """Yield the keys of all records at or below a key; damaged nodes are among them."""
        for found, parts, doc in self.walk(key):
            if found and (self._was_record(parts) if isinstance(doc, LabError) else doc.kind != GROUP):
                yield found

    def _was_record(self, parts: Parts) -> bool:
        """Guess whether a damaged node is a record: what is damaged is listed, and groups are no records."""
        try:
            raw = self.raw(parts)
        except Corrupt:
            return bool(self.payload(parts))
        except LabError:  # a link that leads out
            return True
        return looks_like_record(raw) or bool(self.payload(parts))

    # -- names -------------------------------------------------------------------------------------

    def check_names(self, key: Key, names: set[str]) -> None:
        """Keep the names of a node's arrays, dimensions and children distinct."""
        for depth, part in enumerate(key):
            parts = self.locate(key[:depth])
            if parts is None:
                break
            if depth and part in _taken(self.doc(parts, key[:depth])):
                raise refusals.array_above(key, depth, self.root)
        if self.locate(key) is None:
            return
        for name in sorted(names):
            if self.locate((*key, name)) is not None:
                raise refusals.child_named(key, name, self.root)


@functools.lru_cache(maxsize=1024)
def _parsed(body: bytes) -> Doc:
    return parse(body, "")


def _taken(doc: Doc) -> set[str]:
    taken = set(doc.arrays)
    for name, array in doc.arrays.items():
        taken |= set(array.dims).difference(default_dims(name, len(array.dims)))
    return taken


def _spellings(part: str) -> list[str]:
    """Give the folder names that a part may have: ours, or that of a node whose full name is lost."""
    return [escape(part), part] if "%~" in part and "/" not in part and "\0" not in part else [escape(part)]


def _name_of(folder: str, doc: Doc | None) -> str | None:
    """Give the name that a folder stands for; None for one that is no text."""
    try:
        folder.encode()
    except UnicodeEncodeError:
        return None
    full = unescape(folder) or (doc.name if doc else None)
    return full if full and escape(full) == folder else folder


def unsealed_error(key: Key, where: str, url: str) -> Corrupt:
    """Make the error for a description that is not as it was written."""
    return Corrupt(
        f"{show(key)!r} in {url}: its description {where!r} is not as it was written; store.record() and "
        "store[...] refuse it. If it was edited on purpose, store.repair(key, accept=True) takes it as it "
        "is; else restore it from a copy",
        key=key,
    )


def check_place(root: str, mode: str) -> bool:
    """Refuse a place that is no store or does not suit the mode; True if the store is to be made.

    Raises
    ------
    NotFound, AlreadyExists, Foreign
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
        raise Foreign(f"{root!r} is a file, where a Parquet folder is a folder", key=root)
    return _check_folder(root, mode)


def _check_folder(root: str, mode: str) -> bool:
    if os.path.lexists(os.path.join(root, DESCRIPTION)):
        _check_root(root)
        return False
    if os.listdir(root):
        raise Foreign(
            f"{root!r} is a folder but no Parquet folder: it has no {DESCRIPTION}; choose another place",
            key=root,
        )
    if mode in {"r", "r+"}:
        raise NotFound(f"the folder {root!r} is empty; mode 'a' makes a store in it", key=root)
    return True


def _check_root(root: str) -> None:
    """Refuse a root of another program or of a later version; a damaged one leaves its items readable."""
    raw = Tree(root).raw(())
    body = body_of(raw)
    if body is None:
        if not any(mark.encode() in raw for mark in (integrity.VERSION, integrity.SEAL)):
            raise Foreign(
                f"{root!r} is no Parquet folder: its {DESCRIPTION} has no {integrity.VERSION}", key=root
            )
        return
    layout = layout_of(body, root)
    if layout is None:
        raise Foreign(f"{root!r} is a part of a Parquet folder; open the folder above it", key=root)
    integrity.check_layout(layout, root)
