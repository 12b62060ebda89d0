"""Comparing records on two sides, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import xxhash

from datastore_lab import media
from datastore_lab.errors import LabError
from datastore_lab.keys import Key, show
from datastore_lab.records import GROUP, ArrayInfo, Problem, Stat
from datastore_lab.store.moving.blocks import BLOCK, parts
from datastore_lab.store.moving.plan import REFUSED, Item, Plan, own_attributes
from datastore_lab.store.moving.report import Progress, Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.store.mapping import Store


def compare(source: Store, target: Store, plan: Plan, same: set[Key], watch: Watch) -> Iterator[Problem]:
    """Read both sides of every item that is not known to be the same, and yield what is not.

    Parameters
    ----------
    same : set of Key
        What was compared already, or could not be read.
    """
    nbytes = 0
    for number, item in enumerate(plan.items):
        watch(Progress("verifying", number, len(plan.items), nbytes, plan.nbytes))
        if item.key not in same:
            yield from differences(source, target, item)
        nbytes += item.nbytes
    if not plan.append_only:
        for key in plan.groups:
            yield from _compare_group(source, target, key)
    watch(Progress("verifying", len(plan.items), len(plan.items), nbytes, plan.nbytes))


def differences(source: Store, target: Store, item: Item) -> Iterator[Problem]:
    """Yield what is not the same in the two copies of one record."""
    try:
        theirs, ours = source.stat(item.key), target.stat(item.target)
        if what := _different_stat(theirs, ours):
            yield Problem(item.key, None, what)
            return
        for name, info in theirs.arrays.items():
            if what := _different_array(source, target, item, name, info):
                yield Problem(item.key, name, what)
    except LabError as error:
        yield Problem(item.key, None, f"can't be compared: {error}")


def _different_stat(theirs: Stat, ours: Stat) -> str | None:
    if theirs.kind != ours.kind:
        return f"it is of kind {ours.kind!r} in the copy, and {theirs.kind!r} in the source"
    if sorted(theirs.arrays) != sorted(ours.arrays):
        return (
            f"it has the arrays {sorted(ours.arrays)} in the copy, and {sorted(theirs.arrays)} in the source"
        )
    for name, info in theirs.arrays.items():
        copy = ours.arrays[name]
        if (info.dtype, info.shape, info.dims) != (copy.dtype, copy.shape, copy.dims):
            return f"{name!r} is {_words(copy)} in the copy, and {_words(info)} in the source"
    if _meta(theirs.meta) != _meta(ours.meta):
        return "its attributes differ"
    return None


def _words(info: ArrayInfo) -> str:
    axes = ", ".join(f"{dim}: {length}" for dim, length in zip(info.dims, info.shape, strict=True))
    return f"{info.dtype} ({axes})"


def _meta(meta: Any) -> str:
    return media.to_json({name: value for name, value in meta.items() if name != REFUSED}, sort=True)


def _different_array(source: Store, target: Store, item: Item, name: str, info: ArrayInfo) -> str | None:
    for part in parts(info, BLOCK // 2):  # of both sides at once
        theirs = source.engine.read(source._full(item.key), name, part)
        ours = target.engine.read(target._full(item.target), name, part)
        if _digest(theirs) != _digest(ours):
            return f"the values differ, in the block {_where(part)}"
    return None


def _digest(array: NDArray[Any]) -> bytes:
    state = xxhash.xxh3_128()
    media.add_checksum(state, array)
    return state.digest()


def _where(part: tuple[slice, ...]) -> str:
    return "[" + ", ".join(f"{one.start}:{one.stop}" for one in part) + "]" if part else "of the whole"


def _compare_group(source: Store, target: Store, key: Key) -> Iterator[Problem]:
    try:
        theirs, ours = own_attributes(source.stat(key)), target.stat(key)
    except LabError as error:
        yield Problem(key, None, f"can't be compared: {error}")
        return
    if ours.kind != GROUP:
        return
    differing = [name for name, value in theirs.items() if _other(value, ours.meta, name)]
    if differing:
        yield Problem(key, None, f"the attributes {differing} of the group {show(key)!r} differ")


def _other(value: Any, meta: Any, name: str) -> bool:
    return name not in meta or media.to_json(value) != media.to_json(meta[name])
