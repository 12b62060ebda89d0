"""What a disk may hold after a power cut, from the changes that were asked for.

`states` applies recorded changes one after the other, and after each of them yields what a crash may leave:

- ``died``: all that was asked for, the process alone being gone;
- ``torn``: the same, the last write cut short;
- ``lost``: of what was not synced, neither the bytes nor the names;
- ``early``: all names, but of the bytes only what was synced;
- ``some``: of the writes and of the changes of names that were not synced some, chosen at random.

After each change the first is tried, after each write the second, too, and one of the others, in turn.

A name is durable when its folder was synced, the bytes of a file when the file was: what POSIX promises. So
a file that was renamed from one folder to another may, until both were synced, be in both or in neither.
Only a folder is always in one of them: no file system lets it have two names, and those with a journal write
both changes as one. A renaming in one folder happens as a whole or not at all.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import xxhash


class Change(NamedTuple):
    """One call that changed the disk, or a mark.

    Attributes
    ----------
    kind : str
        ``write``, ``truncate``, ``allocate``, ``sync``, ``sync all``, ``create``, ``rename``, ``link``,
        ``unlink``, ``mkdir``, ``rmdir`` or ``mark``.
    path : str
        Below the recorded folder; empty for the folder itself.
    at : int
        Offset of a write, new length of a truncation.
    data : bytes
        What was written.
    target : str
        The new path, for a renaming.
    """

    kind: str
    path: str
    at: int = 0
    data: bytes = b""
    target: str = ""


class _File:
    """Bytes that are on the disk for certain, and what was asked for since."""

    def __init__(self) -> None:
        self.synced = b""
        self.since: list[Change] = []

    def sync(self) -> None:
        self.synced = self.content(lambda: True)
        self.since.clear()

    def content(self, keep: Callable[[], bool]) -> bytes:
        if not self.since:
            return self.synced
        content = bytearray(self.synced)
        for change in self.since:
            if keep():
                _apply(content, change)
        return bytes(content)


def _apply(content: bytearray, change: Change) -> None:
    at = len(content) if change.at < 0 else change.at
    if change.kind == "write":
        content.extend(bytes(max(0, at - len(content))))
        content[at : at + len(change.data)] = change.data
    else:
        content.extend(bytes(max(0, at - len(content))))
        if change.kind == "truncate":
            del content[at:]


class _Folder:
    """Names that are in the folder, and those that will be after a power cut."""

    def __init__(self) -> None:
        self.names: _Names = {}
        self.synced: _Names = {}


_Names = dict[str, _File | _Folder]


class _Entry(NamedTuple):
    """A change of one name in a folder: what it means from then on, None for nothing."""

    folder: _Folder
    name: str
    node: _File | _Folder | None

    def put(self, names: _Names) -> None:
        if self.node is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.node


class Disk:
    """A folder in memory, to which recorded changes are applied."""

    def __init__(self) -> None:
        self._root = _Folder()
        self._folders = [self._root]
        self._since: list[list[_Entry]] = []  # of names, not synced; each as a whole

    def _find(self, path: str) -> _File | _Folder | None:
        node: _File | _Folder | None = self._root
        for part in path.split("/") if path else ():
            node = node.names.get(part) if isinstance(node, _Folder) else None
        return node

    def _above(self, path: str) -> tuple[_Folder, str]:
        folder, _, name = path.rpartition("/")
        above = self._find(folder)
        if not isinstance(above, _Folder):
            raise AssertionError(f"{path!r} lies in no folder that was seen to be made")  # noqa: TRY004
        return above, name

    def _name(self, *entries: _Entry) -> None:
        """Change names, as a whole."""
        for entry in entries:
            entry.put(entry.folder.names)
        self._since.append(list(entries))

    def apply(self, change: Change) -> None:
        """Make a change; what happens to a file without a name concerns nobody."""
        node = self._find(change.path)
        if change.kind in {"write", "truncate", "allocate"}:
            if isinstance(node, _File):
                node.since.append(change)
        elif change.kind in {"sync", "sync all"}:
            self._sync(node if change.kind == "sync" else self._root, whole=change.kind == "sync all")
        elif change.kind in {"create", "mkdir"}:
            self._create(*self._above(change.path), _File() if change.kind == "create" else _Folder())
        elif change.kind in {"unlink", "rmdir", "rename", "link"}:
            self._rename(change)
        elif change.kind != "mark":
            raise AssertionError(f"can't follow a {change.kind!r} of {change.path!r}")

    def _create(self, folder: _Folder, name: str, made: _File | _Folder) -> None:
        if name not in folder.names:
            self._name(_Entry(folder, name, made))
            if isinstance(made, _Folder):
                self._folders.append(made)

    def _sync(self, node: _File | _Folder | None, *, whole: bool) -> None:
        if whole:
            self._sync_all()
        elif isinstance(node, _Folder):
            self._sync_names(node)
        elif node is not None:
            node.sync()

    def _sync_all(self) -> None:
        self._since.clear()
        for folder in self._folders:
            folder.synced = dict(folder.names)
            for node in folder.names.values():
                if isinstance(node, _File):
                    node.sync()

    def _sync_names(self, folder: _Folder) -> None:
        """Make the names in a folder durable, and what happens together with them elsewhere."""
        waiting, self._since = self._since, []
        for entries in waiting:
            if any(entry.folder is folder for entry in entries):
                for entry in entries:
                    entry.put(entry.folder.synced)
                    self._forget(entry)
            else:
                self._since.append(entries)

    def _forget(self, later: _Entry) -> None:
        """Forget what was to become of a name before it became something else for certain."""
        for number, entries in enumerate(self._since):
            self._since[number] = [e for e in entries if (e.folder, e.name) != (later.folder, later.name)]

    def _rename(self, change: Change) -> None:
        folder, name = self._above(change.path)
        node = folder.names[name]
        gone = [] if change.kind == "link" else [_Entry(folder, name, None)]
        come = [] if change.kind in {"unlink", "rmdir"} else [_Entry(*self._above(change.target), node)]
        together = isinstance(node, _Folder) or not come or come[0].folder is folder
        for entries in [[*gone, *come]] if together else [gone, come]:
            self._name(*entries)

    def files(
        self, *, names: Callable[[], bool] = lambda: True, keep: Callable[[], bool] = lambda: True
    ) -> Files:
        """Give all paths: bytes of a file, None for a folder.

        Parameters
        ----------
        names : callable
            Asked for every change of a name that was not synced.
        keep : callable
            Asked for every write that was not synced.
        """
        found: Files = {}
        inside = self._names(names)

        def walk(folder: _Folder, prefix: str) -> None:
            for name, node in inside[folder].items():
                if isinstance(node, _Folder):
                    found[prefix + name] = None
                    walk(node, f"{prefix}{name}/")
                else:
                    found[prefix + name] = node.content(keep)

        walk(self._root, "")
        return found

    def _names(self, keep: Callable[[], bool]) -> dict[_Folder, _Names]:
        """Give the names in all folders; where a change of a name is kept, those of it before are, too."""
        inside = {folder: dict(folder.synced) for folder in self._folders}
        kept: list[list[_Entry]] = []
        needed: set[tuple[_Folder, str]] = set()
        for entries in reversed(self._since):
            touched = {(entry.folder, entry.name) for entry in entries}
            if keep() or touched & needed:
                kept.append(entries)
                needed |= touched
        for entry in itertools.chain.from_iterable(reversed(kept)):
            entry.put(inside[entry.folder])
        return inside

    def torn(self, change: Change, length: int) -> Files:
        """Give all paths, the last write of a file cut short."""
        node = self._find(change.path)
        if not isinstance(node, _File):
            return self.files()
        last, node.since[-1] = node.since[-1], change._replace(data=change.data[:length])
        try:
            return self.files()
        finally:
            node.since[-1] = last


Files = dict[str, bytes | None]


class State(NamedTuple):
    """What a crash could leave: after how many changes and how, the files, and how many marks were made."""

    after: int
    how: str
    files: Files
    marks: int


def states(changes: list[Change], seed: int = 0, share: float = 1.0) -> Iterator[State]:
    """Yield what a crash can leave, without repetitions.

    Parameters
    ----------
    changes : list of Change
    seed : int
        For the choice of writes that survive, and of states if not all are wanted.
    share : float
        How many of the states to yield.
    """
    disk, choice, marks = Disk(), random.Random(seed), 0  # noqa: S311 (a repeatable choice)
    seen: set[tuple[int, int]] = set()
    for after, change in enumerate(changes, 1):
        disk.apply(change)
        marks += change.kind == "mark"
        chance = random.Random(choice.random())  # noqa: S311 (so that a share holds the same states as all)
        for how_, files in _variants(disk, change, chance):
            if choice.random() < share:
                state = State(after, how_, files(), marks)
                mark = _digest(state.files), marks
                if mark not in seen:
                    seen.add(mark)
                    yield state


def _digest(files: Files) -> int:
    parts = ((name, xxhash.xxh3_128_digest(data or b""), data is None) for name, data in files.items())
    return hash(tuple(parts))


def _variants(disk: Disk, change: Change, chance: random.Random) -> Iterator[tuple[str, Callable[[], Files]]]:
    yield "died", disk.files
    if change.kind == "mark":
        return
    if change.kind == "write" and len(change.data) > 1:
        length = chance.choice([1, chance.randrange(1, len(change.data)), len(change.data) - 1])
        yield "torn", lambda: disk.torn(change, length)
    if not change.kind.startswith("sync"):
        how = chance.choice(["lost", "early", "some"])
        yield how, partial(_cut, disk, how, chance)


def _cut(disk: Disk, how: str, chance: random.Random) -> Files:
    """Give what a power cut leaves, where a process that dies would leave more."""
    if how == "some":
        share = chance.choice([0.2, 0.5, 0.8])  # of what has not to be there, what is
        return disk.files(names=lambda: chance.random() < share, keep=lambda: chance.random() < 0.5)
    return disk.files(names=lambda: how == "early", keep=lambda: False)


class Place:
    """A folder that is made to hold one state after another, writing only what differs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._written: dict[str, tuple[tuple[int, int, int], bytes]] = {}

    def put(self, files: Files) -> None:
        """Make the folder hold just these files."""
        there = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*")}
        for name in sorted(there, reverse=True):
            path, folder = there[name], there[name].is_dir() and not there[name].is_symlink()
            if name not in files or folder != (files[name] is None):
                path.rmdir() if folder else path.unlink()
        for name, data in files.items():
            path = self.folder / name
            if data is None:
                path.mkdir(exist_ok=True)
            elif name not in there or self._written.get(name) != (_mark(path), data):
                path.write_bytes(data)
                self._written[name] = _mark(path), data


def _mark(path: Path) -> tuple[int, int, int]:
    found = path.stat() if path.exists() else None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else (0, 0, 0)
