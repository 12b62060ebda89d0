"""Types, shapes and values as short text for rows, tables and previews."""

from __future__ import annotations

import pprint
import reprlib
from typing import Any

_PLAIN = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 20
_SHORT.maxlevel = 6
LONGEST = 20_000
"""Characters of text that a preview sends to the page at most."""


def shape(lengths: tuple[int, ...]) -> str:
    """Give a shape for people; a single value has none.

    Examples
    --------
    >>> shape((480, 640)), shape(())
    ('480 × 640', '')
    """
    return " × ".join(f"{length:,}" for length in lengths)


def dtype(name: str) -> str:
    """Give a canonical type name in the words that people use.

    Examples
    --------
    >>> dtype("<f8"), dtype("|u1"), dtype("T"), dtype("<M8[ns]"), dtype("<U5"), dtype('[["x", "<i4"]]')
    ('float64', 'uint8', 'text', 'datetime64[ns]', 'text', 'record')
    """
    if name == "T" or name[1:2] == "U":
        return "text"
    if name.startswith(("[", "{")):
        return "record"
    kind, width = name[1:2], name[2:]
    if kind in _PLAIN and width.isdigit():
        word = "bool" if kind == "b" else f"{_PLAIN[kind]}{8 * int(width)}"
        return word if name[0] != ">" else f"{word}, big-endian"
    if kind in "Mm":
        return ("datetime64" if kind == "M" else "timedelta64") + width[1:]
    return {"S": "bytes", "V": "void"}.get(kind, name)


def short(value: Any, limit: int = 200) -> str:
    """Give a value as one line of at most `limit` characters."""
    line = value if isinstance(value, str) else _SHORT.repr(value)
    line = " ".join(line.split()) if "\n" in line else line
    return line if len(line) <= limit else line[: limit - 1] + "…"


def long(value: Any) -> str:
    """Give a value as indented text of at most 20,000 characters."""
    text = value if isinstance(value, str) else pprint.pformat(value, width=88, sort_dicts=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {len(text) - LONGEST:,} more characters"
