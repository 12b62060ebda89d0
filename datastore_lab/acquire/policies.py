"""What happens before samples that a consumer has not read are overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from datastore_lab.acquire.backlog import Memory
from datastore_lab.errors import LabError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from datastore_lab.acquire.backlog import Backlog
    from datastore_lab.acquire.core import Core
    from datastore_lab.acquire.cursor import Cursor

POLICIES = ("drop_oldest", "block", "grow", "spill")

_LIMITS = {"grow": 1_000_000_000, "spill": 10_000_000_000}


class Policy(Protocol):
    """What a consumer wants to happen before samples that it has not read are overwritten."""

    @property
    def backlog(self) -> Backlog | None:
        """What it keeps aside, if it does."""
        ...

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Be called by the producer, without the ring's lock, when `cursor` stands before `tail`."""
        ...


class DropOldest:
    """The producer goes on: whoever is too slow loses the oldest samples."""

    backlog = None

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Do nothing."""


class BlockProducer:
    """The producer waits until this consumer has read, for a limited time if one is given."""

    backlog = None

    def __init__(self, core: Core, timeout: float | None, on_full: Callable[[], None] | None) -> None:
        self._core, self._timeout, self._on_full = core, timeout, on_full

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Wait until the cursor stands at `tail` or has left."""
        core = self._core
        if cursor.overdue:
            return
        if self._on_full is not None:
            self._on_full()
        with core.lock:
            cursor.overdue = not core.signals.wait_room(
                lambda: cursor.position >= tail or cursor.closed or core.closed, self._timeout
            )


class KeepAside:
    """What is about to be overwritten moves into the consumer's own backlog."""

    def __init__(self, core: Core, backlog: Backlog) -> None:
        self._core, self.backlog = core, backlog

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Save the samples before `tail`; what the backlog can't take is lost."""
        core = self._core
        while not cursor.closed and (start := cursor.position) < tail:
            # more than asked for: to keep sample by sample would take many times the room in overhead
            stop = min(max(tail, start + core.piece), core.segment_end(start), start + self.backlog.most)
            span = (core.number(start), stop - start)
            token, fault = None, None
            try:
                token = self.backlog.put(span, list(core.columns.parts(start, stop)))
            except LabError as error:
                fault = error
            with core.lock:
                if cursor.position != start or cursor.closed:
                    continue  # it was read meanwhile, and must not be given twice
                cursor.position = stop
                gone = [span] if fault else self.backlog.keep(span, token)
                for first, count in gone:
                    cursor.lose(first, count)
                cursor.fault = fault or cursor.fault


def make_policy(
    core: Core,
    name: str,
    *,
    timeout: float | None = None,
    limit: int | None = None,
    on_full: Callable[[], None] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Policy:
    """Make the policy of a name.

    Raises
    ------
    ValueError
        Naming those there are.
    """
    check_policy(name)
    if name == "drop_oldest":
        return DropOldest()
    if name == "block":
        return BlockProducer(core, timeout, on_full)
    room = _LIMITS[name] if limit is None else limit
    return KeepAside(core, Memory(core, room) if name == "grow" else _spill(core, room, folder))


def check_policy(name: Any) -> None:
    """Refuse a policy that there is not."""
    if name not in POLICIES:
        raise ValueError(f"there is no policy {name!r}; the policies are {', '.join(map(repr, POLICIES))}")


def _spill(core: Core, limit: int, folder: str | os.PathLike[str] | None) -> Backlog:
    from datastore_lab.acquire.spill import SpillFile

    return SpillFile(core, limit, folder)
