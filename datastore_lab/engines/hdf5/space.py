"""Space in a file that is known to be dead: counted as things are deleted and replaced, kept on the root.

HDF5 forgets what was freed, as nothing may be written where another program may have a view, so the count is
the attribute ``lab_dead`` of the root, in bytes. It holds the payload of what was deleted and something for
each header; what else is lost on the way is not counted.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5a, h5d, h5o, h5s, h5t

from datastore_lab.engines.hdf5 import attrs, links, names

LEAST = 64 << 20
"""With fewer dead bytes than this a file is not written anew on its own."""

_HEADER = 256
_MOST = 1 << 62
_RAW = names.DEAD.encode()
_SCALAR = h5s.create(h5s.SCALAR)
_STRANGE = (OSError, RuntimeError, ValueError, KeyError)


def held(parent: Any, link: bytes) -> int:
    """Count the bytes that go with a link of a group: those of all that only it leads to.

    What HDF5 can't open is not counted, as it must not be in the way of deleting it.
    """
    total = 0
    with contextlib.suppress(*_STRANGE):
        node = h5o.open(parent, link)
        if h5o.get_info(node).rc > 1:
            return 0
        found: list[bytes] = []
        h5o.visit(node, found.append)
        total = _size(node) + sum(_size_of(node, name) for name in found)
    return total


def held_by_record(group: Any) -> int:
    """Count the bytes of the datasets of a node."""
    return sum(held(group, link) for link in links.contents(group).datasets)


def _size_of(node: Any, name: bytes) -> int:
    with contextlib.suppress(*_STRANGE):
        return _size(h5o.open(node, name))
    return 0


def _size(node: Any) -> int:
    if h5o.get_info(node).rc > 1:  # another link keeps it
        return 0
    return _HEADER + (node.get_storage_size() if isinstance(node, h5d.DatasetID) else 0)


def known(root: Any) -> int:
    """Give the number of bytes that are known to be dead."""
    if not h5a.exists(root, _RAW):
        return 0
    attribute = h5a.open(root, _RAW)
    if attribute.shape != () or attribute.dtype.kind != "i":  # another program's
        return 0
    count = np.zeros((), np.int64)
    attribute.read(count)
    return min(max(0, int(count)), _MOST)  # the number may be damaged, or a stranger's


def note(root: Any, more: int) -> None:
    """Count more bytes as dead; a negative number takes back what was counted."""
    if not more:
        return
    count = np.array(known(root) + more, np.int64)
    if h5a.exists(root, _RAW):
        h5a.delete(root, _RAW)
    attrs.create(root, _RAW, h5t.NATIVE_INT64, _SCALAR).write(count)


def is_due(root: Any, path: str, share: float) -> bool:
    """Say whether a file should be written anew: much of it is dead, and there is room for the new one."""
    size = Path(path).stat().st_size
    dead = min(known(root), size)
    return dead >= LEAST and dead > share * size and shutil.disk_usage(Path(path).parent).free > size - dead
