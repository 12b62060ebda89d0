"""Where a large item lies in a target until it is whole, and how it comes to its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datastore_lab.errors import AlreadyExists, EngineError, NotFound
from datastore_lab.store.moving.plan import TEMPORARY, UNFINISHED

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.store.mapping import Store

_PLACES: tuple[Key, ...] = ((TEMPORARY,), *((f"{TEMPORARY}_{number}",) for number in range(2, 10)))
"""The reserved name, and others in case a user has something of that name."""


def drop(target: Store, own: str | None = None) -> None:
    """Delete what interrupted copies have left, or only what one of them has."""
    for place in _PLACES:
        found = _mark(target, place)
        if found is not None and own in (None, found):
            target.delete(place)


def _mark(target: Store, place: Key) -> Any:
    """Give what a copy wrote on its unfinished item; None if there is none, or something of a user."""
    try:
        return target.stat(place).meta.get(UNFINISHED)
    except NotFound:
        return None


def free_place(target: Store, key: Key) -> Key:
    """Give a place for an item that is to come to a key, where nothing lies.

    Raises
    ------
    AlreadyExists
        If another copy is at work there, or a user has something of every such name.
    """
    for place in _PLACES:
        if key[:1] == place:
            continue
        if place not in target:
            return place
        if _mark(target, place) is not None:
            raise AlreadyExists(
                f"{target!r} holds {place[0]!r}, which is of another copy that is still running; copy again "
                "when it has ended",
                key=(*target.prefix, *place),
            )
    raise AlreadyExists(
        f"{target!r} holds something at {TEMPORARY!r} and all the like; large items wait under one of these "
        "names until they are whole: move one of them to another name, then copy again",
        key=(*target.prefix, TEMPORARY),
    )


def put_in_place(target: Store, place: Key, key: Key, own: str) -> None:
    """Replace what is at a key by the item that is complete now; what is below it stays."""
    with target.transaction():
        if _mark(target, place) != own:
            raise EngineError(
                f"another copy into {target!r} runs at the same time and took the place of this one; "
                "copy again when it has ended",
                key=(*target.prefix, *place),
            )
        if key in target:
            for name in list(target.children(key)):
                target.move((*key, name), (*place, name))
            target.delete(key)
        target.move(place, key)
        target.engine.update(target._full(key), {}, drop=(UNFINISHED,))
