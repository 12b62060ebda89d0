"""A view of a folder tree with pending changes, and the renames that make them true."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple


class Plan(NamedTuple):
    """Two rounds of renames: what is in the way or moves is taken out first, then all is put in place.

    Attributes
    ----------
    takes, puts : list of (source, target)
        In an order that works: what lies deeper is taken first and put last.
    """

    takes: list[tuple[str, str]]
    puts: list[tuple[str, str]]


class _Entry:
    """A file or folder: where its content lies now, and which names in it are changed (None: gone)."""

    __slots__ = ("backing", "changed")

    def __init__(self, backing: str) -> None:
        self.backing = backing
        self.changed: dict[str, _Entry | None] = {}


class Overlay:
    """A folder tree as it will be after the pending changes.

    Parameters
    ----------
    root : str
        The folder; nothing in it is touched.
    last : str
        End of the names of metadata files. They are put in place last: whoever looks on meanwhile sees the
        old shape until all new rows are there.
    """

    def __init__(self, root: str, last: str) -> None:
        self._last = last
        self._top = _Entry(root)
        self._before: list[tuple[_Entry, str, _Entry | None, bool]] = []

    def __bool__(self) -> bool:
        return bool(self._top.changed)

    def path(self, parts: Sequence[str]) -> str | None:
        """Say where the content of a node lies, None if it is gone; it may never have been there."""
        entry = self._top
        for index, part in enumerate(parts):
            if part not in entry.changed:
                return os.path.join(entry.backing, *parts[index:])
            following = entry.changed[part]
            if following is None:
                return None
            entry = following
        return entry.backing

    def names(self, parts: Sequence[str]) -> Iterator[str]:
        """Yield the names in a folder."""
        entry = self._find(parts)
        path = entry.backing if entry else self.path(parts)
        changed = entry.changed if entry else {}
        if path is None:
            return
        found = os.listdir(path)
        yield from (name for name in found if name not in changed) if changed else found
        yield from (name for name, child in changed.items() if child is not None)

    def put(self, parts: Sequence[str], staged: str) -> None:
        """Let the content at `staged` stand at a place, instead of what is there."""
        self._set(self._make(parts[:-1]), parts[-1], _Entry(staged))

    def remove(self, parts: Sequence[str]) -> None:
        """Let nothing stand at a place."""
        self._set(self._make(parts[:-1]), parts[-1], None)

    def move(self, old: Sequence[str], new: Sequence[str]) -> None:
        """Let the content of one place stand at another."""
        entry = self._make(old)
        self.remove(old)
        self._set(self._make(new[:-1]), new[-1], entry)

    def mark(self) -> int:
        """Give a point to which `undo` can go back."""
        return len(self._before)

    def undo(self, mark: int) -> None:
        """Forget the changes since a mark."""
        while len(self._before) > mark:
            entry, name, former, was_changed = self._before.pop()
            if was_changed:
                entry.changed[name] = former
            else:  # (where Ctrl-C came between the two lines of `_set`, it is not there)
                entry.changed.pop(name, None)

    def _set(self, entry: _Entry, name: str, child: _Entry | None) -> None:
        self._before.append((entry, name, entry.changed.get(name), name in entry.changed))
        entry.changed[name] = child

    def plan(self, hold: Callable[[], str], stage: str) -> Plan:
        """Give the renames; `hold` gives fresh paths for what is taken, `stage` is where new content lies."""
        takes: dict[str, str] = {}
        puts: list[tuple[str, str]] = []

        def take(path: str) -> str:
            if path not in takes:
                takes[path] = hold()
            return takes[path]

        def visit(entry: _Entry, target: str) -> None:
            for name, child in entry.changed.items():
                origin, goal = os.path.join(entry.backing, name), os.path.join(target, name)
                if child is not None and child.backing == origin:
                    visit(child, goal)
                    continue
                if os.path.lexists(origin) and not (child and os.path.isfile(child.backing)):
                    take(origin)
                if child is not None:
                    # what lies in a staged folder has to leave it before that is put in place
                    staged = os.path.dirname(child.backing) == stage
                    puts.append((child.backing if staged else take(child.backing), goal))
                    visit(child, goal)

        visit(self._top, self._top.backing)
        puts.sort(key=lambda pair: pair[1].endswith(self._last))
        deepest_first = sorted(takes.items(), key=lambda pair: -pair[0].count(os.sep))
        return Plan(deepest_first, puts)

    def _find(self, parts: Sequence[str]) -> _Entry | None:
        entry: _Entry | None = self._top
        for part in parts:
            entry = entry.changed.get(part) if entry else None
        return entry

    def _make(self, parts: Sequence[str]) -> _Entry:
        entry = self._top
        for part in parts:
            child = entry.changed.get(part)
            if child is None:
                child = _Entry(os.path.join(entry.backing, part))
                self._set(entry, part, child)
            entry = child
        return entry
