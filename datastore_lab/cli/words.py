"""Names and numbers on a terminal, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import keys

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.records import Stat

_GROUP = re.compile(r"(?P<place>.+)::(?P<key>\[.*\]|[^\]]*)", re.DOTALL)


def printable(text: str) -> str:
    r"""Escape what would steer the terminal: names come out of files.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(key: Key) -> str:
    r"""Write a key as `parse_key` reads it: a path, or a JSON list where no path can say it.

    Examples
    --------
    >>> print(shown(("run", "camera")), shown(("a/b", "c")), shown(("\n",)))
    run/camera ["a/b", "c"] ["\n"]
    """
    path = keys.show(key)
    plain = isinstance(path, str) and path == printable(path) and not path.startswith(("[", "-", "/"))
    return str(path) if plain and not str(path).endswith("/") else json.dumps(key)


def parse_key(text: str | None) -> Key:
    """Read a key: a path, a JSON list of parts, or nothing for the root.

    Examples
    --------
    >>> parse_key("run/camera"), parse_key('["a/b", "c"]'), parse_key(None)
    (('run', 'camera'), ('a/b', 'c'), ())
    """
    if not text:
        return ()
    try:
        parts = json.loads(text) if text.startswith("[") else None
    except ValueError:
        parts = None
    return keys.parse(text) if parts is None else keys.parse(parts)


def split_place(text: str) -> tuple[str, Key]:
    """Divide ``PLACE::KEY`` into a path or URL and a key; a file that has '::' in its name is a place.

    Examples
    --------
    >>> split_place("lab.h5::run/7"), split_place("lab.h5"), split_place("postgresql://[::1]/lab")
    (('lab.h5', ('run', '7')), ('lab.h5', ()), ('postgresql://[::1]/lab', ()))
    """
    place, key = split_text(text)
    return place, parse_key(key)


def split_text(text: str) -> tuple[str, str | None]:
    """Divide ``PLACE::KEY``, and leave the key as it is written."""
    found = _GROUP.fullmatch(text)
    if found is None or "://" in found["key"] or Path(text).exists():  # (a chain of URLs is no place)
        return text, None
    return found["place"], found["key"]


def count(number: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count(1, "item"), count(10_000, "problem")
    ('1 item', '10,000 problems')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cut(text: str, length: int) -> str:
    """Shorten a text to so many characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def shape(lengths: Sequence[int]) -> str:
    """Write a shape as in ``480 x 640``."""
    return " x ".join(map(str, lengths)) if lengths else "scalar"


def in_memory(stat: Stat) -> int:
    """Give the size of all arrays of a record in memory, in bytes."""
    return sum(info.nbytes for info in stat.arrays.values())


def as_json(value: Any) -> str:
    """Write a JSON value on one line, in characters that steer no terminal."""
    from datastore_lab import media

    return json.dumps(media.tag_floats(value), ensure_ascii=True, allow_nan=False)
