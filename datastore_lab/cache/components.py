"""The parts of a key by their names: which are code and which values, and in what two keys differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

CODE_OF, DOC_OF, VERSION_OF = "code of ", "docstring of ", "version of "
COMPILED, FILE, TAG, DEFAULT = "file of ", "file ", "tag ", "default "

_CODE = (CODE_OF, DOC_OF, VERSION_OF, COMPILED, TAG)
_SUMMARIES = ("names in ", "imports of ", "what deps names")
"""Digests of many names at once: what differs in them has a part of its own."""


def is_code(name: str) -> bool:
    """Tell whether a part is code, or stands for it: after a change of that a result may still be right.

    Examples
    --------
    >>> is_code("code of lab.fit"), is_code("version of numpy"), is_code("lab.GAIN"), is_code("file a.csv")
    (True, True, False, False)
    """
    return name.startswith(_CODE)


def is_variable(name: str) -> bool:
    """Tell whether a part is the content of a variable."""
    return not name.startswith((*_CODE, *_SUMMARIES, FILE))


def different(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the parts that differ.

    Examples
    --------
    >>> different({"a": "1", "b": "2"}, {"b": "3", "c": "4", "names in this cell": "5"})
    ['a', 'b', 'c']
    """
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return [name for name in changed if not name.startswith(_SUMMARIES)]


def different_value(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Name a part that differs and is no code, so that a result can't be taken over; None without any."""
    return next((name for name in different(before, after) if not is_code(name)), None)


def nearest(found: Iterable[tuple[int, Mapping[str, str], T]], parts: Mapping[str, str]) -> T | None:
    """Choose what differs least from a key, the last of several.

    Parameters
    ----------
    found : iterable of tuple
        A handicap in parts, the parts, and what they belong to.
    parts : mapping of str to str
        Those of the key.
    """
    best: tuple[int, T] | None = None
    for handicap, before, item in found:
        count = handicap + len(different(before, parts))
        if best is None or count <= best[0]:
            best = count, item
    return None if best is None else best[1]


def of_version(name: str, old: str | None, new: str | None) -> str:
    """Say how the version of a library differs.

    Examples
    --------
    >>> of_version("version of numpy", "2.4.5", "2.4.6"), of_version("version of numpy", "2.4.5", None)
    ('numpy 2.4.5 → 2.4.6', 'numpy 2.4.5 is no longer used')
    """
    library = name.removeprefix(VERSION_OF)
    if new is None:
        return f"{library} {old} is no longer used"
    return f"{library} {new} is used now" if old is None else f"{library} {old} → {new}"
