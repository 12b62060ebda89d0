"""The plain part of the YAML that `text.dump` writes, read in a third of the time.

Almost every description is mappings in blocks, short lists, numbers, words and simple text. Whatever is
anything else (another layout, a comment, a long key, an escape) is left to the reader of all of it: what is
read here means the same to both, and nothing that this takes does the other refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.+/%()-]*|-[0-9][0-9.eE+-]*"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_ITEM = rf"{_QUOTED}|{_WORD}"
_LINE = re.compile(rf"( *)(- )?({_ITEM}):(?: ({_ITEM}|\[[^\n]*\]|\{{\}}))?")
_ITEMS = re.compile(_ITEM)
_LIST = re.compile(rf"\[(?:(?:{_ITEM})(?:, (?:{_ITEM}))*)?\]")
_LONGEST, _LONGEST_KEY = 64 << 10, 200
_DEEPEST = 20

_Entry = tuple[int, str, str | None]  # indentation, name, and what stands behind it


class _OtherwiseError(Exception):
    """It is not as plain as that."""


def load(text: str, plain: Callable[[str], Any]) -> dict[str, Any] | None:
    r"""Read a mapping; None if that is for the other reader to do.

    Parameters
    ----------
    text : str
    plain : callable
        Gives the value of a word without quotes.

    Examples
    --------
    >>> load("unit: V\nrange: [1, 2]\nfiles:\n  - name: a\n", str)
    {'unit': 'V', 'range': ['1', '2'], 'files': [{'name': 'a'}]}
    >>> load("unit: V # volts\n", str)
    """
    lines = text.split("\n") if len(text) <= _LONGEST else [text]
    if lines.pop():
        return None
    try:
        return _Reader(lines[1:] if lines and lines[0].startswith("# ") else lines, plain).whole()
    except _OtherwiseError:
        return None


class _Reader:
    """The lines of a text, in reverse, and how words are read."""

    def __init__(self, lines: list[str], plain: Callable[[str], Any]) -> None:
        self._plain = plain
        self._entries: list[_Entry | int] = []  # a number where an item of a list begins there
        for line in lines:
            found = _LINE.fullmatch(line)
            if found is None:
                raise _OtherwiseError
            blank, dash, name, value = found.groups()
            if dash:
                self._entries.append(len(blank))
            self._entries.append((len(blank) + (2 if dash else 0), name, value))
        self._entries.reverse()

    def whole(self) -> dict[str, Any]:
        """Read everything."""
        found = self._mapping(0, 0)
        if self._entries:
            raise _OtherwiseError
        return found

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        entries = self._entries
        while entries and isinstance(entry := entries[-1], tuple) and entry[0] == indent:
            entries.pop()
            name = self._name(entry[1])
            if name in found:
                raise _OtherwiseError
            found[name] = self._inside(indent + 2, depth + 1) if entry[2] is None else self._value(entry[2])
        if not found:
            raise _OtherwiseError
        return found

    def _inside(self, indent: int, depth: int) -> Any:
        """Read what is indented by two more: a mapping, or a list of such."""
        if not self._entries or depth > _DEEPEST:
            raise _OtherwiseError
        if self._entries[-1] != indent:
            return self._mapping(indent, depth)
        found = []
        while self._entries and self._entries[-1] == indent:
            self._entries.pop()
            found.append(self._mapping(indent + 2, depth + 1))
        return found

    def _name(self, name: str) -> str:
        if len(name) > _LONGEST_KEY:
            raise _OtherwiseError
        return json.loads(name) if name[0] == '"' else name

    def _value(self, value: str) -> Any:
        if value[0] == "[":
            if _LIST.fullmatch(value) is None:
                raise _OtherwiseError
            return [self._item(item) for item in _ITEMS.findall(value)]
        return {} if value == "{}" else self._item(value)

    def _item(self, item: str) -> Any:
        return json.loads(item) if item[0] == '"' else self._plain(item)
