"""What changes metadata does the same on any medium: every new digest and seal that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab import media
from datastore_lab.engines.zarr import seals
from datastore_lab.engines.zarr.meta import ARRAY_LAYOUT, ARRAYS, METADATA, changed, to_json
from datastore_lab.engines.zarr.plan import check_meta, split_attributes
from datastore_lab.errors import Corrupt
from datastore_lab.records import ARRAY_ATTRIBUTES

if TYPE_CHECKING:
    from datastore_lab.engines.zarr.places import Parts
    from datastore_lab.engines.zarr.tree import Node, Tree
    from datastore_lab.keys import Key


class Documents:
    """Changes of metadata; where the files go is left to `put_file`.

    Parameters
    ----------
    tree : Tree
        What is to be changed.
    """

    def __init__(self, tree: Tree[Any]) -> None:
        self.tree = tree

    def put_file(self, parts: Parts, *buffers: Any) -> None:
        """Let a file stand at a place in the tree."""
        raise TypeError(f"{type(self).__name__} has no place for {parts!r}")

    def remove(self, parts: Parts) -> None:
        """Let nothing stand at a place in the tree."""
        raise TypeError(f"{type(self).__name__} can't remove {parts!r}")

    def consolidate(self) -> None:
        """Put a copy of all metadata into the root, where that is of use."""

    def update(self, key: Key, meta: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node."""
        check_meta(meta)
        node = self.tree.node(key)
        merged = dict(meta)
        if ARRAY_ATTRIBUTES in meta:
            own, merged = split_attributes(meta, set(self.tree.array_names(node)))
            node = self._put_array_attributes(node, own)
            node.attributes.pop(ARRAY_ATTRIBUTES, None)
        kept = {name: value for name, value in node.attributes.items() if name not in drop}
        self.put_doc(node, {**kept, **merged})

    def parts_to_delete(self, key: Key) -> Parts:
        """Find a node that is to go."""
        try:
            return self.tree.node(key).parts
        except Corrupt:  # nobody needs to read what is to vanish
            return self.tree.parts_of(key)

    def put_doc(self, node: Node, attributes: Mapping[str, Any]) -> None:
        """Put a group's metadata with other attributes."""
        self.put_file((*node.parts, METADATA), changed(node.doc, attributes))

    def put_arrays(self, node: Node, documents: Mapping[str, dict[str, Any]]) -> Node:
        """Put the metadata of some arrays of a node; gives the node with their new digests."""
        folders, digests = self.tree.array_names(node), dict(self.tree.digests(node))
        for name, document in documents.items():
            self.put_file((*node.parts, folders[name], METADATA), to_json(document))
            digests[name] = seals.digest(document)
        if not node.is_ours:
            return node
        return node._replace(doc={**node.doc, "attributes": {**node.attributes, ARRAYS: digests}})

    def _put_array_attributes(self, node: Node, own: Mapping[str, Mapping[str, Any]]) -> Node:
        documents = {}
        for name, folder in self.tree.array_names(node).items():
            doc = self.tree.array_doc(node, name, folder)
            layout = {key: value for key, value in doc["attributes"].items() if key in ARRAY_LAYOUT}
            attributes = {**own.get(name, {}), **layout}
            if doc["attributes"] != attributes:
                documents[name] = {**doc, "attributes": media.tag_floats(attributes)}
        return self.put_arrays(node, documents)

    def forget_copies(self, key: Key) -> None:
        """Drop consolidated metadata above a change: other readers would believe the old copy."""
        for depth in range(len(key)):
            node = self._find_healthy(key[:depth])
            if node is not None and node.doc.get("consolidated_metadata") is not None:
                self.put_doc(node, node.attributes)

    def _find_healthy(self, key: Key) -> Node | None:
        try:
            return self.tree.glance(key)
        except Corrupt:  # its copy goes when it is mended
            return None
