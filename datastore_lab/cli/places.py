"""What the operating system knows of a store that lies in files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def size_on_disk(url: str) -> int | None:
    """Give the bytes of all files of a store; None if it does not lie in files.

    Links are not followed.
    """
    files = list(_files(Path(url)))
    return sum(entry.stat(follow_symlinks=False).st_size for entry in files) if files else None


def _files(place: Path) -> Iterator[os.DirEntry[str]]:
    """Find the files of a store: itself, all in its folder, or those beside it that begin with its name."""
    try:
        beside = list(os.scandir(place.parent))
    except (OSError, ValueError):
        return
    own = [entry for entry in beside if entry.name == place.name]
    if not own and place.stem:
        start = f"{place.stem}."
        own = [
            entry for entry in beside if entry.name.startswith(start) and entry.name.endswith(place.suffix)
        ]
    for entry in own:
        yield from _below(entry)


def _below(entry: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    if entry.is_file(follow_symlinks=False):
        yield entry
    elif entry.is_dir(follow_symlinks=False):
        for inner in os.scandir(entry.path):
            yield from _below(inner)


def holder(url: str) -> str | None:
    """Say which process has a store open for writing; None if nobody has, or if the system does not tell.

    Looks at the list of locks that Linux keeps, so that no lock is taken, not even for a moment.
    """
    journal = Path(f"{url}-journal")
    candidates = [Path(url), journal, journal / "lock", Path(f"{url}.lock")]
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        held = {
            line.split()[-3]: line.split()[-4] for line in locks if " FLOCK " in line and "->" not in line
        }
    except (OSError, ValueError, IndexError):
        return None
    for path in candidates:
        if (pid := held.get(_identity(path))) is not None:
            return f"process {pid}"
    return None


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
