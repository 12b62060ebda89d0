"""JSON values as YAML that people read, and that comes back exactly.

What is written is a small part of YAML that means the same to readers of version 1.1 and 1.2: mappings in
blocks, lists of plain values in brackets, text in double quotes unless it is a harmless word, floats with a
point, NaN and infinities as ``.nan``, ``.inf`` and ``-.inf``. What is read may be laid out otherwise, by
hand, but has no anchors, aliases, tags or repeated keys, is not nested deeper than `DEEPEST`, and only
``null``, ``true``, ``false`` and numbers are anything but text: ``no`` and ``2026-01-01`` are words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from datastore_lab.engines.parquet import quick
from datastore_lab.errors import Corrupt, NotStorable

LONGEST = 32 << 20
"""Largest text that is written or read, in bytes: what it says takes some thirty times that in memory."""

DEEPEST = 120
_WIDTH = 100
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_HARMLESS = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_ .+/%()-]{0,150}[A-Za-z0-9_+/%)-])?")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_INVISIBLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONG_KEY = 200
_CONSTANTS = {"null": None, "~": None, "": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,4300}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = {".nan": math.nan, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}


def dump(value: Mapping[str, Any], what: str = "the description") -> bytes:
    """Write a mapping of JSON values.

    Raises
    ------
    NotStorable
        If the text gets longer than `LONGEST`.

    Examples
    --------
    >>> print(dump({"unit": "V", "answer": "no", "range": [1, 2.5]}).decode(), end="")
    unit: V
    answer: "no"
    range: [1, 2.5]
    """
    raw = "".join(f"{line}\n" for line in _mapping(value, 0)).encode() or b"{}\n"
    if len(raw) > LONGEST:
        raise NotStorable(
            f"{what} takes {len(raw):,} bytes as text, of which {LONGEST:,} can be kept; store what is large "
            "in it as arrays"
        )
    return raw


def _mapping(value: Mapping[str, Any], indent: int) -> Iterator[str]:
    blank = " " * indent
    for name, item in value.items():
        key = _text(name)
        if len(key) > _LONG_KEY:  # YAML reads no longer ones on the line of their value
            yield f"{blank}? {key}"
            key = ""
        one_line = _one_line(item, indent)
        if one_line is not None:
            yield f"{blank}{key}: {one_line}"
            continue
        yield f"{blank}{key}:"
        yield from _block(item, indent + 2)


def _block(value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _mapping(value, indent)
        return
    blank = " " * indent
    for item in value:
        one_line = _one_line(item, indent)
        if one_line is not None:
            yield f"{blank}- {one_line}"
            continue
        lines = _block(item, indent + 2)
        yield f"{blank}- {next(lines)[indent + 2 :]}"
        yield from lines


def _one_line(value: Any, indent: int) -> str | None:
    """Give what stands behind a key, lists of plain values broken into lines; None for what needs a block."""
    if isinstance(value, Mapping):
        return None if value else "{}"
    if not isinstance(value, (list, tuple)):
        return _scalar(value)
    if any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return None
    lines, line, blank = [], "[", "\n" + " " * (indent + 2)
    for item in value:
        line += f"{_scalar(item)}, "
        if len(line) > _WIDTH:
            lines.append(line.rstrip())
            line = ""
    return blank.join([*lines, line]).rstrip().removesuffix(",") + "]"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return str(int(value))


def _float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(float(value))
    return text if "." in text else text.replace("e", ".0e")  # YAML 1.1 takes 1e+16 for text


def _text(text: str) -> str:
    if _HARMLESS.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def load(raw: bytes, where: str) -> dict[str, Any]:
    r"""Read a mapping.

    Parameters
    ----------
    raw : bytes
    where : str
        Path of the file, for messages.

    Raises
    ------
    Corrupt
        If it is no mapping in the part of YAML that is read here, or too long.

    Examples
    --------
    >>> load(b"answer: no\nday: 2026-01-01\nrange: [1, 2.5]", "x.yaml")
    {'answer': 'no', 'day': '2026-01-01', 'range': [1, 2.5]}
    """
    if len(raw) > LONGEST:
        raise Corrupt(
            f"{where!r} is {len(raw):,} bytes long, more than any description; restore it", key=where
        )
    try:
        text = raw.decode()
        value = quick.load(text, _plain)
        if value is None:
            value = _build(yaml.parse(text, Loader=_LOADER))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Corrupt(f"{where!r} can't be read as YAML ({error}); restore it", key=where) from error
    if not isinstance(value, dict):
        raise Corrupt(f"{where!r} holds no mapping; restore it", key=where)
    return value


def load_plain(raw: bytes) -> dict[str, Any] | None:
    """Read a mapping that is laid out as `dump` does it; None for any other."""
    try:
        return quick.load(raw.decode(), _plain)
    except ValueError:
        return None


class _Open:
    """A list or mapping whose end has not come yet."""

    __slots__ = ("key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.key: str | None = None

    def add(self, item: Any) -> None:
        if isinstance(self.value, list):
            self.value.append(item)
        elif self.key is not None:
            self.value[self.key] = item
            self.key = None
        else:
            raise ValueError("a key is a list or mapping")


def _build(events: Iterator[Any]) -> Any:
    top = _Open([])
    stack = [top]
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            _refuse_extras(event)
            _add_scalar(stack[-1], event)
        elif isinstance(event, yaml.CollectionStartEvent):
            _refuse_extras(event)
            if len(stack) > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
            inner = _Open({} if isinstance(event, yaml.MappingStartEvent) else [])
            stack[-1].add(inner.value)
            stack.append(inner)
        elif isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases")  # noqa: TRY004 (nothing of a wrong type)
    if len(top.value) != 1:
        raise ValueError(f"it holds {len(top.value)} documents")
    return top.value[0]


def _refuse_extras(event: Any) -> None:
    if event.anchor is not None or event.tag is not None:
        raise ValueError("it has anchors or tags")


def _add_scalar(inside: _Open, event: Any) -> None:
    if isinstance(inside.value, dict) and inside.key is None:
        if event.value in inside.value:
            raise ValueError(f"the key {event.value!r} is there twice")
        inside.key = event.value
    else:
        inside.add(event.value if event.style else _plain(event.value))


def _plain(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL.get(text, text)
