"""What may be opened as a Zarr store, and what is left alone."""

from __future__ import annotations

import os
from typing import Any

from datastore_lab import integrity
from datastore_lab.engines.zarr import seals
from datastore_lab.engines.zarr.meta import METADATA
from datastore_lab.engines.zarr.places import FolderPlace
from datastore_lab.engines.zarr.tree import Tree
from datastore_lab.errors import AlreadyExists, Corrupt, Foreign, NotFound


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
    try:
        doc = Tree(FolderPlace(root)).doc(())
    except Corrupt:
        if mode == "w":
            raise
        return False  # what lies below can still be read
    if doc is not None:
        if doc["node_type"] == "array":
            raise Foreign(
                f"{root!r} is a single Zarr array, not a hierarchy; open the folder around it", key=root
            )
        check_layout(doc["attributes"], root)
        return False
    return _refuse_other(root, mode)


def check_layout(attributes: dict[str, Any], root: str) -> None:
    """Refuse a later layout; a version that was only damaged makes the root unreadable, nothing else."""
    if not seals.is_sealed({**attributes, seals.VERSION: integrity.LAYOUT}):
        integrity.check_layout(attributes.get(seals.VERSION), root)


def layout_of(tree: Tree[Any]) -> int | None:
    """Give the version of the layout that the root of a store names; None if it names none."""
    doc = tree.doc(())
    return None if doc is None else integrity.known_layout(doc["attributes"].get(seals.VERSION))


def _refuse_other(root: str, mode: str) -> bool:
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
