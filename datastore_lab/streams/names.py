"""File names of streams: ``run.<part>.<part>.arrow`` is the stream ``("part", "part")`` of ``run.arrow``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import xxhash

from datastore_lab import media
from datastore_lab.errors import Foreign

if TYPE_CHECKING:
    from datastore_lab.keys import Key

LOCK, MEND = "-lock", "-mend"
"""Endings of the files beside a stream: of the one that is writing it, and while it is written anew."""

_LONGEST = 180


class NotOurs(Foreign):
    """A file of another program among those of a store; it is no stream, and in nobody's way."""


def joined(key: Key) -> str:
    """Give the part of a file's name that says its key; a dot within a part is escaped.

    Examples
    --------
    >>> joined(("run", "a.b/c"))
    'run.a%2Eb%2Fc'
    """
    whole = ".".join(media.escape_file(part).replace(".", "%2E") for part in key)
    if len(whole.encode()) <= _LONGEST:
        return whole
    digest = xxhash.xxh3_128_hexdigest(json.dumps(key).encode())
    return f"{whole.encode()[:60].decode(errors='ignore').rpartition('%')[0] or 'stream'}%~{digest}"


def split(name: str) -> Key | None:
    """Undo `joined`; None for a name that was cut, whose file says the key itself.

    Examples
    --------
    >>> split("run.a%2Eb%2Fc")
    ('run', 'a.b/c')
    """
    parts = name.split(".")
    if "%~" in name or not all(parts):
        return None
    if "%" not in name:  # as most of thousands
        return tuple(parts)
    return tuple(media.unescape_file(part) or part for part in parts)
