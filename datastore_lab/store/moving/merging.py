"""Merging a store into another in one commit, without holding both."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from datastore_lab.store.moving.copying import Existing
from datastore_lab.store.moving.plan import same_place, size_of
from datastore_lab.store.moving.run import copy
from datastore_lab.store.opening import open_store

if TYPE_CHECKING:
    from datastore_lab.store.mapping import Store

_IN_MEMORY = 64_000_000
"""Bytes of array data that wait in memory for their commit; more of them wait in a file."""

_STAGE = "merged"


def merge(source: Store, target: Store, *, overwrite: bool) -> int:
    """Copy everything in a store into another one, in one commit; see `Store.merge_from`.

    While a store is changed its other readers in this process may have to wait. Two threads that merged two
    stores to and fro would wait for each other if one store were read while the other is held; so a source
    that others may change is read before.
    """
    existing = Existing.REPLACE if overwrite else Existing.KEEP
    with contextlib.ExitStack() as stack:
        if source.engine.writable and not same_place(source, target):
            source = _staged(source, stack)
        with target.engine.transaction():
            return copy(source, target, existing, verify=False).copied


def _staged(source: Store, stack: contextlib.ExitStack) -> Store:
    """Copy a store to a place of its own, which goes with the stack."""
    place = "memory://"
    if sum(size_of(source.stat(key)) for key in source.keys_below()) > _IN_MEMORY:
        folder = tempfile.TemporaryDirectory(prefix="datastore-lab-", ignore_cleanup_errors=True)
        place = str(Path(stack.enter_context(folder)) / "merged.h5")
    stage = stack.enter_context(open_store(place, durability="process" if "://" not in place else "disk"))
    copy(source, stage.group(_STAGE), Existing.KEEP, verify=False)
    return stage.group(_STAGE)
