"""Finding nodes in a Zarr hierarchy by listing folders and reading ``zarr.json`` directly.

zarr's own ``keys()`` and ``members()`` are some 300 times slower, which a tree browser feels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from datastore_lab import integrity
from datastore_lab.engines.zarr import seals
from datastore_lab.engines.zarr.meta import (
    ARRAYS,
    BIRTH,
    LARGEST,
    METADATA,
    NAME,
    SUMS,
    ArrayDoc,
    escape,
    parse,
    parse_array,
    unescape,
    user_meta,
)
from datastore_lab.engines.zarr.places import Parts, Place
from datastore_lab.engines.zarr.seals import KIND
from datastore_lab.errors import Corrupt, LabError
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, GROUP, Stat, default_dims, refusals
from datastore_lab.records import ARRAYS as ARRAYS_KIND

if TYPE_CHECKING:
    from collections.abc import Iterator

P = TypeVar("P", bound=Place)

_REMEMBERED = 200
_GROUP_HEAD = b'{"zarr_format": 3, "node_type": "group", '


class Node(NamedTuple):
    """A group: its key, where it is, and its parsed metadata."""

    key: Key
    parts: Parts
    doc: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes, those of the layout included."""
        return self.doc["attributes"]  # type: ignore[no-any-return]

    @property
    def is_ours(self) -> bool:
        """Whether this package made the group."""
        return KIND in self.attributes

    @property
    def is_record(self) -> bool:
        """Whether this package wrote a record here."""
        return bool(self.attributes.get(KIND, GROUP) != GROUP)


class Tree(Generic[P]):
    """The nodes of a hierarchy as they are, or will be after the pending changes.

    Parameters
    ----------
    place : Place
        Where its files are.
    """

    def __init__(self, place: P) -> None:
        self.place = place
        self.root = place.root
        self._seen: dict[object, Node | None] = {}

    # -- one node ----------------------------------------------------------------------------------

    def doc(self, parts: Parts) -> dict[str, Any] | None:
        """Read the metadata of a group or array; None if there is none."""
        raw = self.place.get((*parts, METADATA), LARGEST)
        return None if raw is None else parse(raw, self.place.where((*parts, METADATA)))

    def locate(self, key: Key) -> Parts | None:
        """Turn a key into folder names, None if there is no such folder."""
        parts: Parts = ()
        for part in key:
            found = self.place.choose(parts, _spellings(part))
            if found is None:
                return None
            parts = (*parts, found)
        return parts

    def find(self, key: Key) -> Node | None:
        """Give the group at a key, None if there is none.

        Raises
        ------
        Corrupt
            If it is not as it was sealed.
        """
        parts = self.locate(key)
        doc = None if parts is None else self.doc(parts)
        if parts is None or doc is None or doc["node_type"] != "group":
            return None
        seals.check(key, doc["attributes"], self.root)
        if key and unescape(parts[-1]) is None and _name_of(parts[-1], doc) != key[-1]:
            return None  # asked for by the folder's name, where the node has a longer one
        return Node(key, parts, doc)

    def glance(self, key: Key) -> Node | None:
        """Give the same for a look that changes nothing in it; thousands of new items have one parent."""
        parts = self.locate(key)
        mark = None if parts is None else self.place.mark((*parts, METADATA))
        if mark is None:
            return self.find(key)
        if mark not in self._seen:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[mark] = self.find(key)
        return self._seen[mark]

    def forget(self) -> None:
        """Forget what was looked at, as something was committed."""
        self._seen.clear()

    def node(self, key: Key) -> Node:
        """Give the group at a key, or raise `NotFound`."""
        node = self.find(key)
        if node is None:
            raise refusals.nothing_at(key, self.root)
        return node

    def parts_of(self, key: Key) -> Parts:
        """Give the folder names of a node, even where its metadata is damaged."""
        try:
            return self.node(key).parts
        except Corrupt:
            return self.locate(key) or ()

    # -- the arrays of a node ----------------------------------------------------------------------

    def array_names(self, node: Node) -> dict[str, str]:
        """Map the names of a node's arrays to those of their folders."""
        if node.is_ours:
            return {name: escape(name) for name in self.digests(node)}
        found = {}
        for folder in sorted(self.place.names(node.parts)):
            doc = self._doc_or_none((*node.parts, folder))
            if doc is not None and doc["node_type"] == "array" and (name := _name_of(folder, doc)):
                found[name] = folder
        return found

    def digests(self, node: Node) -> dict[str, str]:
        """Give the digest of the metadata of each array of a record, by name."""
        listed = node.attributes.get(ARRAYS, {}) if node.is_ours else {}
        if not isinstance(listed, dict) or "" in listed:
            raise Corrupt(f"the list of arrays of {show(node.key)!r} is damaged: {listed!r}", key=node.key)
        return listed

    def _doc_or_none(self, parts: Parts) -> dict[str, Any] | None:
        """Read metadata where other items must stay readable whatever this one holds."""
        if parts[-1] == METADATA:
            return None
        try:
            return None if self.place.choose(parts[:-1], parts[-1:]) is None else self.doc(parts)
        except LabError:
            return None

    def array(self, node: Node, name: str, folder: str) -> ArrayDoc:
        """Read the metadata of one array, and compare it with the digest in the record."""
        return parse_array(self.array_doc(node, name, folder), name, self.place.where((*node.parts, folder)))

    def array_doc(self, node: Node, name: str, folder: str) -> dict[str, Any]:
        """Read the same as it is written."""
        parts = (*node.parts, folder)
        there = self.place.choose(node.parts, (folder,)) is not None
        doc = self.doc(parts) if there else None
        if doc is None or doc["node_type"] != "array":
            where = self.place.where(parts)
            raise Corrupt(
                f"the array {name!r} in {where!r} is missing; restore it or delete the item", key=node.key
            )
        if node.is_ours and self.digests(node).get(name) != seals.digest_parsed(doc):
            where = f"its metadata {self.place.where((*parts, METADATA))!r}"
            raise integrity.damaged(node.key, name, where, self.root)
        return doc

    def array_of(self, key: Key, name: str) -> tuple[Node, str, ArrayDoc]:
        """Find an array of a node: the node, the array's folder, and its metadata."""
        node = self.node(key)
        names = self.array_names(node)
        if name not in names:
            raise refusals.no_array(key, name, names, self.root)
        return node, names[name], self.array(node, name, names[name])

    def array_seen(self, key: Key, name: str) -> tuple[Node, str, ArrayDoc]:
        """Give the same to a reader, who may be told what `stat` has just found."""
        return self.array_of(key, name)

    def arrays(self, node: Node) -> dict[str, ArrayDoc]:
        """Read the metadata of all arrays of a node."""
        return {name: self.array(node, name, folder) for name, folder in self.array_names(node).items()}

    def identity(self, key: Key, name: str) -> object:
        """Give something that changes when an array is replaced, but not when it grows."""
        node, folder, doc = self.array_of(key, name)
        return (self.place.identity((*node.parts, folder)), doc.shape[1:], doc.user_attributes())

    def fingerprint(self, key: Key) -> str:
        """Give what tells the data of a node from other data; see `Engine.fingerprint`."""
        node = self.node(key)
        if born := node.attributes.get(BIRTH):
            return integrity.fingerprint(Stat(GROUP, {}, {}), {}, born)
        docs, sums = {}, {}
        for name, folder in self.array_names(node).items():
            docs[name] = self.array(node, name, folder)
            sums[name] = docs[name].attributes.get(SUMS) or self.place.identity((*node.parts, folder))
        kind = str(node.attributes.get(KIND))
        return integrity.fingerprint(Stat(kind, {name: doc.info() for name, doc in docs.items()}, {}), sums)

    # -- the tree ----------------------------------------------------------------------------------

    def stat(self, key: Key) -> Stat:
        """Describe a node."""
        node = self.node(key)
        return self.describe(node, self.arrays(node))

    def describe(self, node: Node, docs: dict[str, ArrayDoc]) -> Stat:
        """Say what a node is, by what was read of it."""
        kind = node.attributes.get(KIND) or (ARRAYS_KIND if docs else GROUP)
        meta = user_meta(node.attributes)
        own = {name: attributes for name, doc in docs.items() if (attributes := doc.user_attributes())}
        if own:
            meta[ARRAY_ATTRIBUTES] = {**meta.get(ARRAY_ATTRIBUTES, {}), **own}
        return Stat(str(kind), {name: doc.info() for name, doc in docs.items()}, meta)

    def candidates(self, key: Key) -> tuple[Parts, list[str]]:
        """Give the names in a node's folder that may be children, in alphabetic order."""
        try:
            node = self.node(key)
        except Corrupt:
            return self.parts_of(key), self._candidates(self.parts_of(key), set())
        return node.parts, self.candidates_of(node)

    def candidates_of(self, node: Node) -> list[str]:
        """Give the folder names in a node that may be children."""
        return self._candidates(node.parts, set(self.array_names(node).values()) if node.is_ours else set())

    def _candidates(self, parts: Parts, arrays: set[str]) -> list[str]:
        return sorted(set(self.place.names(parts)) - arrays - {METADATA})

    def child_name(self, parts: Parts, folder: str) -> str | None:
        """Give the name of a child node by its folder; None if that is no group."""
        name = unescape(folder)
        try:
            if self.place.choose(parts, (folder,)) is None:
                return None
            raw = self.place.get((*parts, folder, METADATA), LARGEST)
            if raw is None:
                return None
            if name is not None and raw.startswith(_GROUP_HEAD):  # saves to parse hundreds for one page
                return name if _is_text(folder) else None
            doc = parse(raw, folder)
        except LabError:  # it is listed, so that asking for it tells what is wrong with it
            return name or folder
        return None if doc["node_type"] != "group" else _name_of(folder, doc)

    def keys(self, key: Key) -> Iterator[Key]:
        """Yield the keys of all records at or below a key; damaged nodes are among them."""
        for found, node in self.nodes(key):
            if node is None or node.is_record or (not node.is_ours and self.array_names(node)):
                yield found

    def nodes(self, key: Key) -> Iterator[tuple[Key, Node | None]]:
        """Yield all groups at or below a key, parents before their children; None for damaged ones."""
        try:
            node: Node | None = self.node(key)
        except LabError:
            if key and self.locate_or_none(key) is None:
                raise
            node = None
        yield from self._nodes(key, node, self.parts_of(key) if node is None else node.parts)

    def locate_or_none(self, key: Key) -> Parts | None:
        """Find the folder of a node; None also where the way there is refused."""
        try:
            return self.locate(key)
        except LabError:
            return None

    def _nodes(self, key: Key, node: Node | None, parts: Parts) -> Iterator[tuple[Key, Node | None]]:
        yield key, node
        for folder in self._candidates(parts, set()) if node is None else self.candidates_of(node):
            name = self.child_name(parts, folder)
            if name is not None:
                child = (*key, name)
                yield from self._nodes_below(child, (*parts, folder))

    def _nodes_below(self, key: Key, parts: Parts) -> Iterator[tuple[Key, Node | None]]:
        try:
            if self.place.choose(parts[:-1], parts[-1:]) is None:
                return
            doc = self.doc(parts) or {}
            seals.check(key, doc["attributes"], self.root)
        except (LabError, KeyError) as error:
            if isinstance(error, Corrupt):
                yield from self._nodes(key, None, parts)
            else:
                yield key, None
        else:
            yield from self._nodes(key, Node(key, parts, doc), parts)

    def walk(self, parts: Parts) -> Iterator[tuple[Parts, dict[str, Any]]]:
        """Yield the folders and metadata of all groups and arrays at or below a place; damage is left out."""
        try:
            doc = self.doc(parts)
            if doc is None or (parts and self.place.choose(parts[:-1], parts[-1:]) is None):
                return
            if doc["node_type"] == "array":
                yield parts, doc
                return
            seals.check((), doc["attributes"], self.root)
        except LabError:
            return
        yield parts, doc
        yield from self._walk_below(Node((), parts, doc))

    def _walk_below(self, node: Node) -> Iterator[tuple[Parts, dict[str, Any]]]:
        digests = {escape(name): digest for name, digest in self.digests(node).items()}
        for folder in sorted(self.place.names(node.parts)):
            if folder != METADATA:
                for parts, doc in self.walk((*node.parts, folder)):
                    listed = digests.get(folder) if len(parts) == len(node.parts) + 1 else None
                    if listed is None or listed == seals.digest_parsed(doc):
                        yield parts, doc

    # -- names -------------------------------------------------------------------------------------

    def check_names(self, key: Key, names: set[str]) -> None:
        """Keep the names of a node's arrays, dimensions and children distinct."""
        for depth, part in enumerate(key):
            parent = self.glance(key[:depth])
            if parent is None:
                return
            if part in self._taken(parent, part):
                raise refusals.array_above(key, depth, self.root)
        for name in sorted(names) if self.locate(key) is not None else ():
            if self.find((*key, name)) is not None:
                raise refusals.child_named(key, name, self.root)

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
    # a node whose full name is damaged is listed by the name of its folder
    return [ours, part] if unescape(part) in {part, None} else [ours]


def _is_text(folder: str) -> bool:
    try:
        folder.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name_of(folder: str, doc: dict[str, Any]) -> str | None:
    """Give the name that a folder stands for; None for one that is no text."""
    if not _is_text(folder):
        return None
    name = unescape(folder)
    if name is not None:
        return name
    full = doc["attributes"].get(NAME)
    return full if isinstance(full, str) and full and escape(full) == folder else folder
