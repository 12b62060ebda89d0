"""Looking over a source before anything is written: what is to be copied, and what can't be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab.errors import BadKey, Corrupt, Foreign, LabError, NotFound, NotStorable, ReadOnly
from datastore_lab.keys import Key, show
from datastore_lab.records import RESERVED, Problem, Stat
from datastore_lab.store.moving.report import Progress, Watch

if TYPE_CHECKING:
    from datastore_lab.store.mapping import Store

TEMPORARY = "lab_copying"
"""Reserved child of a target: where a large item lies until it is complete."""

UNFINISHED = "lab_unfinished"
"""Reserved name in ``meta`` of an item that a copy has not completed: by it, not by its name, it is known."""

ROOT = "root"
"""Where the arrays of a root go in a target whose own root can't have any."""

REFUSED = "lab_refused"
"""Reserved name in ``meta``: what of a foreign node is not read, and why."""

_MOST_GROUPS = 100_000
_DEEPEST = 100
_NAMED = 5


class Item(NamedTuple):
    """One record to copy: where it is, where it goes, and its size in memory."""

    key: Key
    target: Key
    nbytes: int


class Plan(NamedTuple):
    """What there is to copy."""

    items: list[Item]
    groups: list[Key]
    skipped: list[Problem]
    root: Key | None
    append_only: bool

    @property
    def nbytes(self) -> int:
        """Size of all items in memory."""
        return sum(item.nbytes for item in self.items)


def make_plan(source: Store, target: Store, *, skip_damaged: bool, watch: Watch) -> Plan:
    """Look at every node of the source, and refuse what the target can't take.

    Raises
    ------
    Corrupt, Foreign
        If an item can't be read, unless `skip_damaged`.
    NotStorable
        If the target only takes streams, naming what is none.
    ReadOnly, BadKey
    """
    _check_sides(source, target)
    keys = list(source.keys_below())
    root = _place_of_root(keys, target)
    only = append_only(target)
    plan = Plan([], list(_groups(source, keys)), [], root, only)
    refused: list[str] = []
    for number, key in enumerate(keys):
        watch(Progress("looking", number, len(keys), 0, 0))
        _look(source, key, plan, refused, skip_damaged=skip_damaged)
    if only:
        refused += [
            f"{show(key)!r} (a group with attributes)" for key in plan.groups if _has_own(source, key)
        ]
        _refuse(refused, target)
    return plan


def _check_sides(source: Store, target: Store) -> None:
    if not target.writable:
        raise ReadOnly(
            f"{target.url} is open for reading only, so nothing can be copied into it", key=target.url
        )
    source.stat()
    short = min(len(source.prefix), len(target.prefix))
    if same_place(source, target) and source.prefix[:short] == target.prefix[:short]:
        raise BadKey(
            f"{source!r} can't be copied into itself; choose another group or file", key=target.prefix
        )


def same_place(source: Store, target: Store) -> bool:
    """Whether two stores lie on one engine, or in one file."""
    return source.engine is target.engine or (
        source.url == target.url and not source.url.startswith("memory:")
    )


def append_only(target: Store) -> bool:
    """Whether a store that can be written refuses every change, even one that would change nothing."""
    try:
        target.engine.update((*target.prefix, TEMPORARY, "absent"), {})
    except ReadOnly:
        return True
    except NotFound:
        return False
    return False


def _place_of_root(keys: list[Key], target: Store) -> Key | None:
    if () not in keys or target.prefix:
        return None
    if any(key[:1] == (ROOT,) for key in keys):
        raise BadKey(
            f"the source keeps arrays in its root, which would go to {ROOT!r}, where there is something "
            "already; copy into a group of the target instead",
            key=(),
        )
    return (ROOT,)


def _look(source: Store, key: Key, plan: Plan, refused: list[str], *, skip_damaged: bool) -> None:
    try:
        stat = source.stat(key)
    except LabError as error:
        if not skip_damaged:
            raise
        plan.skipped.append(Problem(key, None, str(error)))
        return
    if UNFINISHED in stat.meta:
        what = "an item of a copy that was interrupted; finish that copy into this store first"
        plan.skipped.append(Problem(key, None, f"not copied: {what}"))
        return
    for name, reason in stat.meta.get(REFUSED, {}).items():
        if not skip_damaged:
            raise Foreign(
                f"{name!r} of {show(key)!r} in {source.url} is {reason}, which is not read; "
                "to copy all the rest, leave it out with skip_damaged (--skip-damaged)",
                key=key,
            )
        plan.skipped.append(Problem(key, name, f"not copied: {reason}"))
    if plan.append_only and (why := no_stream(stat)):
        refused.append(f"{show(key)!r} ({why})")
    place = plan.root if plan.root is not None and key == () else key
    plan.items.append(Item(key, place, size_of(stat)))


def size_of(stat: Stat) -> int:
    """Give the size of all arrays of a record in memory, in bytes."""
    return sum(info.nbytes for info in stat.arrays.values())


def no_stream(stat: Stat) -> str | None:
    """Say why a record can't be appended row by row; None if it can."""
    lengths = {info.shape[0] if info.shape else -1 for info in stat.arrays.values()}
    if not lengths:
        return "it has no array"
    if -1 in lengths:
        return "a single value has no rows"
    return "its arrays differ in length" if len(lengths) > 1 else None


def _refuse(refused: list[str], target: Store) -> None:
    if refused:
        more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        raise NotStorable(
            f"{target.url} only takes streams, whose arrays have rows in equal number; it can't hold "
            f"{', '.join(refused[:_NAMED])}{more}. Nothing was copied; copy single items, or choose "
            "another format",
            key=target.url,
        )


def _groups(source: Store, keys: list[Key]) -> Iterator[Key]:
    """Yield the nodes without a record: those above records, and empty ones."""
    records = set(keys)
    inner = {key[:depth] for key in keys for depth in range(len(key))} | {()}
    above = sorted(inner - records, key=lambda key: (len(key), key))
    yield from above
    waiting = [*above, *keys]
    for _ in range(_MOST_GROUPS + len(waiting)):
        if not waiting:
            return
        node = waiting.pop()
        for name in _children(source, node):
            child = (*node, name)
            if child not in records and child not in inner:
                yield child
                waiting += [child] if len(child) < _DEEPEST else []
    raise Foreign(f"{source.url} has more than {_MOST_GROUPS} groups without a record", key=source.url)


def _children(source: Store, key: Key) -> Iterator[str]:
    try:
        yield from source.children(key)
    except (Corrupt, NotFound):  # what is below a damaged node is in the list of records, or is lost
        return


def _has_own(source: Store, key: Key) -> bool:
    return bool(own_attributes(source.stat(key)))


def own_attributes(stat: Stat) -> dict[str, object]:
    """Give the attributes of a group that are for people; the others belong to the layout of its medium."""
    return {name: value for name, value in stat.meta.items() if not name.startswith(RESERVED)}
