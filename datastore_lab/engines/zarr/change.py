"""Changes of a Zarr hierarchy: staged as files and folders, and noted in the overlay."""

from __future__ import annotations

import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

from datastore_lab import integrity, media
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.documents import Documents
from datastore_lab.engines.zarr.meta import (
    ARRAYS,
    BIRTH,
    METADATA,
    NAME,
    ArrayDoc,
    escape,
    full_name,
    group_json,
    to_json,
)
from datastore_lab.engines.zarr.plan import (
    RecordPlan,
    plan_record,
    plan_stream,
)
from datastore_lab.engines.zarr.seals import KIND, VERSION
from datastore_lab.errors import Corrupt, NotFound
from datastore_lab.folders.side_by_side import side_by_side
from datastore_lab.records import GROUP, Record, Stat, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.places import FolderPlace, Parts
    from datastore_lab.engines.zarr.tree import Tree
    from datastore_lab.folders.log import TreeLog
    from datastore_lab.folders.overlay import Overlay
    from datastore_lab.keys import Key

_CONSOLIDATED = 1000


class Changes(Documents):
    """Everything that a writer does to a tree; nothing is done before the log's commit.

    Parameters
    ----------
    tree : Tree
        Where the pending changes are noted.
    log : TreeLog
        Where new files and folders are staged.
    """

    tree: Tree[FolderPlace]

    def __init__(self, tree: Tree[FolderPlace], log: TreeLog) -> None:
        super().__init__(tree)
        self.log = log

    @property
    def overlay(self) -> Overlay:
        """The pending changes."""
        return self.tree.place.overlay

    # -- the operations ----------------------------------------------------------------------------

    def start(self) -> None:
        """Empty the root, or make it."""
        for name in list(self.overlay.names(())):
            self.overlay.remove((name,))
        self.put_file((METADATA,), group_json({VERSION: integrity.LAYOUT}))

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key."""
        refusals.refuse_root(key, self.tree.root)
        plan = plan_record(key, record)
        self.tree.check_names(key, plan.names)
        self._put_record(key, plan)

    def begin(self, key: Key, spec: Stat) -> None:
        """Put an empty record that will grow."""
        refusals.refuse_root(key, self.tree.root)
        node = self.tree.find(key)
        if node is not None and self.tree.stat(key).kind != GROUP:
            raise refusals.record_at(key, self.tree.root)
        plan = plan_stream(key, spec)
        self.tree.check_names(key, plan.names)
        self._put_record(key, plan._replace(meta={BIRTH: integrity.birth(), **plan.meta}))

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        refusals.refuse_root(old, self.tree.root)
        refusals.refuse_root(new, self.tree.root)
        node = self.tree.node(old)
        if new[: len(old)] == old:
            raise refusals.into_itself(old, new, self.tree.root)
        if self.tree.find(new) is not None:
            raise refusals.something_at(new, self.tree.root)
        self.tree.check_names(new, set())
        parent = self._make(new[:-1])
        target = (*parent, escape(new[-1]))
        self.overlay.move(node.parts, target)
        full = full_name(new[-1])
        attributes = {name: value for name, value in node.attributes.items() if name != NAME}
        if full or len(attributes) < len(node.attributes):
            self.put_doc(node._replace(parts=target), {**attributes, **full})
        self.forget_copies(old)

    def delete(self, key: Key) -> None:
        """Delete a node with everything below."""
        refusals.refuse_root(key, self.tree.root)
        self.remove(self.parts_to_delete(key))
        self.forget_copies(key)

    def consolidate(self) -> None:
        """Put a copy of all metadata into the root, for readers that would else warn and look for each.

        Only of small trees: whoever opens the root reads all of it, and every session writes it again.
        """
        folders = self._folders(())
        if sum(1 for _ in itertools.islice(folders, _CONSOLIDATED + 1)) > _CONSOLIDATED:
            return
        copies = copies_below(self.tree)
        root = self.tree.node(())
        inline = {"kind": "inline", "must_understand": False, "metadata": copies}
        plain = {name: value for name, value in root.doc.items() if name != "consolidated_metadata"}
        attributes = media.tag_floats(root.attributes)
        self.put_file(
            (METADATA,), to_json({**plain, "attributes": attributes, "consolidated_metadata": inline})
        )

    def _folders(self, parts: Parts) -> Iterator[Parts]:
        """Yield what may be groups and arrays below a place, without reading any of them."""
        for name in self.overlay.names(parts):
            if name != METADATA and not name.startswith("c."):
                yield (*parts, name)
                if os.path.isdir(self.tree.place.where((*parts, name))):
                    yield from self._folders((*parts, name))

    # -- how ---------------------------------------------------------------------------------------

    def put_file(self, parts: Parts, *buffers: Any) -> None:
        """Stage a file for a place in the tree."""
        path = self.log.new()
        self.log.write(path, *buffers)
        self.overlay.put(parts, path)

    def remove(self, parts: Parts) -> None:
        """Note that a file or folder is to go."""
        self.overlay.remove(parts)

    def _put_record(self, key: Key, plan: RecordPlan) -> None:
        parts = self.tree.locate(key) if self.tree.glance(key[:-1]) is not None else None
        if parts is None:
            self._put_new(key, plan)
        else:
            self._replace(key, parts, plan)
        self.forget_copies(key)

    def _put_new(self, key: Key, plan: RecordPlan) -> None:
        """Stage a record, with the groups above it that are missing, as one folder."""
        depth, top, folder = self._stage_groups(key)
        digests = self._stage_arrays(folder, plan)
        self._stage_doc(folder, key[-1], {KIND: plan.kind, ARRAYS: digests, **plan.meta})
        self.overlay.put((*self._above(key[:depth]), escape(key[depth])), top)

    def _above(self, key: Key) -> Parts:
        node = self.tree.glance(key)
        return () if node is None else node.parts

    def _stage_groups(self, key: Key) -> tuple[int, str, str]:
        """Stage folders for the missing nodes down to a key: how many are there, the first, and the last.

        All but the last get their metadata.
        """
        depth = next(
            depth for depth in range(len(key) - 1, -1, -1) if self.tree.find(key[:depth]) is not None
        )
        top = folder = self.log.new()
        self.log.make_folder(top)
        for level in range(depth + 1, len(key)):
            self._stage_doc(folder, key[level - 1], {})
            folder = os.path.join(folder, escape(key[level]))
            self.log.make_folder(folder)
        return depth, top, folder

    def _stage_doc(self, folder: str, part: str, attributes: Mapping[str, Any]) -> None:
        self.log.write(os.path.join(folder, METADATA), group_json({**full_name(part), **attributes}))

    def _stage_arrays(self, folder: str, plan: RecordPlan) -> dict[str, str]:
        return {
            name: self._stage_array(os.path.join(folder, escape(name)), array, plan.docs[name])
            for name, array in plan.arrays.items()
        }

    def _stage_array(self, folder: str, array: NDArray[Any], doc: ArrayDoc) -> str:
        self.log.make_folder(folder)

        def put(name: str, *buffers: Any) -> None:
            self.log.write(os.path.join(folder, name), *buffers)

        if array.nbytes <= chunking.WHOLE:
            return chunking.encode(array, doc, put)
        summed = functools.partial(side_by_side, threads=1)  # faster than any disk
        return chunking.encode(array, doc, put, side_by_side if doc.packing == "zstd" else summed)

    def _replace(self, key: Key, parts: Parts, plan: RecordPlan) -> None:
        """Stage a record in place of another, whose children stay; it may be damaged."""
        staged = {name: self.log.new() for name in plan.arrays}
        digests = {
            name: self._stage_array(staged[name], array, plan.docs[name])
            for name, array in plan.arrays.items()
        }
        for folder in self._own_folders(key, parts):
            self.overlay.remove((*parts, folder))
        for name, path in staged.items():
            self.overlay.put((*parts, escape(name)), path)
        attributes = {**full_name(key[-1]), KIND: plan.kind, ARRAYS: digests, **plan.meta}
        self.put_file((*parts, METADATA), group_json(attributes))

    def _own_folders(self, key: Key, parts: Parts) -> list[str]:
        """List the array folders of a node that are there."""
        present = {name for name in self.overlay.names(parts) if name != METADATA}
        try:
            node = self.tree.node(key)
            return [folder for folder in self.tree.array_names(node).values() if folder in present]
        except (Corrupt, NotFound):
            return [folder for folder in present if self.tree.child_name(parts, folder) is None]

    def _make(self, key: Key) -> Parts:
        """Make the groups down to a key; gives its folder names."""
        if self.tree.find(key) is None:
            depth, top, folder = self._stage_groups(key)
            self._stage_doc(folder, key[-1], {})
            self.overlay.put((*self._above(key[:depth]), escape(key[depth])), top)
        return self.tree.node(key).parts


def copies_below(tree: Tree[Any]) -> dict[str, Any]:
    """Give the metadata of everything below the root, by path, as consolidated metadata has it."""
    copies: dict[str, Any] = {}
    for parts, doc in tree.walk(()):
        plain = {name: value for name, value in doc.items() if name != "consolidated_metadata"}
        copies["/".join(parts)] = {**plain, "attributes": media.tag_floats(doc["attributes"])}
    copies.pop("", None)
    return copies
