"""Every state in which a crash can leave a folder store: recorded from real work, rebuilt, and judged.

`record` writes down each change that an engine makes on disk. `crash_states` rebuilds what the disk would
hold had the power failed after any of them:

- ``cut``: all changes up to there, in order;
- ``torn``: the same, the last file written only by half;
- ``unsynced``: the same, and every file that was not synced by then is empty.

A folder store must open from each of them with everything that was acknowledged and nothing by halves.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from datastore_lab.folders import files

VARIANTS = ("cut", "torn", "unsynced")


class Change(NamedTuple):
    """One change on disk: what was done, to which path below the recorded folder, and how."""

    operation: str
    path: str
    detail: Any


class Trace:
    """What was done on disk, in order, and when each step of the work was acknowledged."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.acknowledged: list[int] = []

    def acknowledge(self) -> None:
        """Note that a step has returned: from here on it must survive."""
        self.acknowledged.append(len(self.changes))

    def survivors(self, number: int) -> tuple[int, int]:
        """Say how many steps must, and how many may, have survived a crash after `number` changes.

        A file system may forget all changes of names since the last sync of any folder, so that the state
        after a sync must also do for every crash before the next one.
        """
        following = number
        if number and self.changes[number - 1].operation == "sync":
            rest = range(number, len(self.changes))
            following = next((at for at in rest if self.changes[at].operation == "sync"), len(self.changes))
        least = bisect.bisect_right(self.acknowledged, following)
        return least, max(least, bisect.bisect_right(self.acknowledged, number) + 1)


@contextmanager
def record(folder: Path) -> Iterator[Trace]:
    """Record all changes that folder engines make below `folder` while the block runs."""
    trace = Trace()
    prefix = f"{folder}/"

    def observe(operation: str, path: str, detail: Any) -> None:
        if operation in {"rename", "link"}:
            detail = detail.removeprefix(prefix)
        trace.changes.append(Change(operation, path.removeprefix(prefix), detail))

    with files.observe(observe):
        yield trace


class _File:
    """Content of a file, and whether it was synced; a rename keeps the object."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.synced = False


class Disk:
    """A folder in memory, to which recorded changes are applied."""

    def __init__(self) -> None:
        self._nodes: dict[str, _File | None] = {}
        self._last: _File | None = None

    def apply(self, change: Change) -> None:
        """Do one change; what a real disk refuses (a folder that exists, a missing file) does nothing."""
        self._last = None
        node = self._nodes.get(change.path)
        match change.operation:
            case "mkdir":
                self._nodes.setdefault(change.path, None)
            case "write":
                self._last = self._nodes[change.path] = _File(change.detail)
            case "append" if node is not None:
                node.data += change.detail
                node.synced, self._last = False, node
            case "sync" if node is not None:
                node.synced = True
            case "unlink" | "rmdir":
                self._nodes.pop(change.path, None)
            case "link":
                self._nodes[change.detail] = node
            case "rename":
                self._rename(change.path, change.detail)

    def _rename(self, source: str, target: str) -> None:
        inside = source + "/"
        for path in [path for path in self._nodes if path == source or path.startswith(inside)]:
            self._nodes[target + path[len(source) :]] = self._nodes.pop(path)

    def build(self, folder: Path, variant: str) -> bool:
        """Make the files; False if this variant does not differ from ``cut``."""
        if variant == "torn" and not (self._last and self._last.data):
            return False
        if variant == "unsynced" and not self._has_unsynced():
            return False
        folder.mkdir(parents=True)
        for path, node in sorted(self._nodes.items()):
            place = folder / path
            if node is None:
                place.mkdir(parents=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self._content(node, variant))
        return True

    def _has_unsynced(self) -> bool:
        return any(node is not None and not node.synced and node.data for node in self._nodes.values())

    def _content(self, node: _File, variant: str) -> bytes:
        if variant == "torn" and node is self._last:
            return node.data[: len(node.data) // 2]
        return b"" if variant == "unsynced" and not node.synced else node.data


class CrashState(NamedTuple):
    """A folder as a crash left it: where, after how many changes, which variant, what may have survived."""

    folder: Path
    number: int
    variant: str
    least: int
    most: int


def crash_states(trace: Trace, scratch: Path, *, share: float = 1.0, seed: int = 0) -> Iterator[CrashState]:
    """Rebuild the states of a trace, each in a new folder below `scratch`.

    Parameters
    ----------
    trace : Trace
    scratch : Path
        Where the folders are made; the caller removes each when it has judged it.
    share : float
        How many of the states, as a fraction, chosen by `seed`.
    """
    choice = random.Random(seed)  # noqa: S311 (a repeatable sample)
    disk = Disk()
    for number in range(len(trace.changes) + 1):
        if number:
            disk.apply(trace.changes[number - 1])
        for variant in VARIANTS:
            folder = scratch / f"{number}-{variant}"
            if choice.random() < share and disk.build(folder, variant):
                yield CrashState(folder, number, variant, *trace.survivors(number))
