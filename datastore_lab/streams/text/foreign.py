"""CSV files of other programs, for reading: a column has a type only if every cell of it says so clearly."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datastore_lab.errors import Corrupt, NotFound
from datastore_lab.records import ARRAYS, Selection, Stat
from datastore_lab.streams import disk, parts
from datastore_lab.streams.columns import plain as as_numpy
from datastore_lab.streams.columns import text as one
from datastore_lab.streams.ipc.read import info as describe
from datastore_lab.streams.kinds import said
from datastore_lab.streams.names import NotOurs
from datastore_lab.streams.text.lines import parse, stretches
from datastore_lab.streams.text.sidecar import MOST_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from datastore_lab.keys import Key

_BOM = b"\xef\xbb\xbf"
_SNIFFED = 1 << 16
_SEPARATOR = re.compile(rb"[sS][eE][pP]=([,;\t])\r?\n")
"""A first line for Excel alone."""

_DELIMITERS = ",;\t"
# '007' and '+49' are names of something: a number has no leading zero and no plus
_WHOLE = r"^-?(0|[1-9][0-9]*)$"
_REAL = r"^-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(nan|NaN|inf|Inf)$"
_TRUTH = r"^(true|false|True|False|TRUE|FALSE)$"
_DAY = r"^(1[7-9]|20|21)[0-9]{2}-[01][0-9]-[0-3][0-9]$"
_TIME = (
    r"^(1[7-9]|20|21)[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?Z?$"
)
_LONG = r"^-?[0-9]{16,}$"


class ForeignTable:
    """A table without a sidecar, at the root of its store.

    Numbers with a decimal comma stay text: whether ``1,234`` is one or a thousand is not
    for a program to guess.

    Raises
    ------
    Foreign
        If it is no table of UTF-8 text.
    """

    def __init__(self, path: str, key: Key = ()) -> None:
        self.path = path
        self.key = key
        self.trusting, self.layout = False, None
        found = os.stat(path)  # noqa: PTH116
        self._seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        head = disk.read(path, 0, min(_SNIFFED, found.st_size))
        if not head or b"\0" in head or not _utf8(head):
            raise NotOurs(f"{path!r} is no table of text in UTF-8, but {said(path)}", key=path)
        start = len(_BOM) if head.startswith(_BOM) else 0
        if hint := _SEPARATOR.match(head, start):
            start, self._delimiter = hint.end(), hint[1].decode()
        else:
            self._delimiter = _delimiter(head[start:].decode(errors="ignore"))
        line = next(stretches(path, start, min(found.st_size, start + _SNIFFED)), (start, found.st_size))
        self._names, skipped = self._header(disk.read(path, *line))
        self._scan(start, found.st_size, skipped)

    def _header(self, raw: bytes) -> tuple[list[str], bool]:
        """Give the names of the columns, and whether the first line holds them."""
        first = _first_line(raw)
        width = len(_split(first, self._delimiter))
        if width > MOST_COLUMNS:
            raise NotOurs(f"{self.path!r} has {width} columns, more than {MOST_COLUMNS}", key=self.path)
        cells = [
            column[0].as_py()
            for column in parse(first, width, list(range(width)), self.path, self._delimiter)
        ]
        if any(re.match(_REAL, cell) for cell in cells):
            return [f"column_{index}" for index in range(width)], False
        names: list[str] = []
        for index, cell in enumerate(cells):
            name, count = cell.strip() or f"column_{index}", 1
            while (name if count == 1 else f"{name}.{count}") in names:
                count += 1
            names.append(name if count == 1 else f"{name}.{count}")
        return names, True

    def _scan(self, start: int, size: int, skipped: bool) -> None:
        """Look through the table once, for types and for where its rows lie."""
        width = len(self._names)
        self._spans = list(stretches(self.path, start, size))
        self._starts, self._skipped = [0], skipped
        seen: list[dict[str, bool]] = [{} for _ in range(width)]
        for piece in range(len(self._spans)):
            columns = self._cells(piece, list(range(width)))
            self._starts.append(self._starts[-1] + len(columns[0]))
            for found, column in zip(seen, columns, strict=True):
                _look(column, found)
        self._types = {name: _type(found) for name, found in zip(self._names, seen, strict=True)}

    def _cells(self, piece: int, wanted: list[int]) -> list[Any]:
        try:
            raw = disk.read(self.path, *self._spans[piece])
            raw = raw.rstrip(b"\r\n") if piece == len(self._spans) - 1 else raw
            columns = parse(raw, len(self._names), wanted, self.path, self._delimiter)
        except Corrupt as error:
            raise NotOurs(
                f"{error.message}: it is no table that can be read as it is", key=self.path
            ) from error
        return [column[1:] for column in columns] if piece == 0 and self._skipped else columns

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        found = os.stat(self.path)  # noqa: PTH116
        return (found.st_ino, found.st_size, found.st_mtime_ns) == self._seen

    def stat(self) -> Stat:
        """Describe the columns."""
        rows = self._starts[-1]
        arrays = {name: describe(dtype, (rows,), ("row",), None) for name, dtype in self._types.items()}
        return Stat(ARRAYS, arrays, {})

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of a column."""
        if name not in self._types:
            raise NotFound(f"{self.path!r} has only {sorted(self._types)}, no {name!r}", key=self.key)
        dtype, index = self._types[name], self._names.index(name)

        def fetch(piece: int, start: int, stop: int) -> NDArray[Any]:
            return _values(self._cells(piece, [index])[0], dtype)[start:stop]

        return parts.pick(self._starts, (self._starts[-1],), dtype, selection, fetch)

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Nothing can be said about files without sums, beyond that they can be read."""
        yield from ()

    def loose_end(self) -> str | None:
        """Nothing: files of other programs are left alone."""
        return None


def _utf8(raw: bytes) -> bool:
    try:
        raw[:-4].decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_line(raw: bytes) -> bytes:
    quotes = 0
    for line in raw.splitlines(keepends=True):
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            return raw[: raw.index(line) + len(line)] if quotes == line.count(b'"') else raw
    return raw


def _split(line: bytes, delimiter: str) -> list[str]:
    return re.sub(r'"[^"]*"', "", line.decode(errors="replace")).split(delimiter)


def _delimiter(text: str) -> str:
    """Choose the delimiter that every line has equally often."""
    bare = re.sub(r'"[^"]*"', "", text).splitlines()[:100]
    bare = bare[:-1] if len(bare) > 2 else bare  # (the last one may be cut)
    counts = {mark: {line.count(mark) for line in bare if line} for mark in _DELIMITERS}
    even = [mark for mark in _DELIMITERS if len(counts[mark]) == 1 and 0 not in counts[mark]]
    # a comma beside another delimiter is one of decimals
    return next((mark for mark in (";", "\t", ",") if mark in even), ",")


def _look(column: Any, found: dict[str, bool]) -> None:
    """Note what all cells so far have in common."""
    empty = pc.equal(column, one(""))
    filled = pc.filter(column, pc.invert(empty))
    found["empty"] = found.get("empty", False) or bool(pc.any(empty).as_py())
    found["filled"] = found.get("filled", False) or len(filled) > 0
    kinds = {"whole": _WHOLE, "real": _REAL, "truth": _TRUTH, "day": _DAY, "time": _TIME}
    for kind, pattern in kinds.items():
        if found.get(kind, True):
            found[kind] = bool(pc.all(pc.match_substring_regex(filled, pattern)).as_py() in {True, None})
    found["long"] = found.get("long", False) or bool(pc.any(pc.match_substring_regex(filled, _LONG)).as_py())
    if found["whole"]:
        found["whole"] = _holds(filled, np.dtype("i8"))
        found["long"] = found["long"] or not found["whole"]
    for kind, code in (("real", "f8"), ("day", "M8[D]"), ("time", "M8[ns]")):
        found[kind] = found[kind] and _holds(filled, np.dtype(code))


def _holds(column: Any, dtype: np.dtype[Any]) -> bool:
    try:
        values = _values(column, dtype)
    except (ValueError, pa.ArrowException):
        return False
    if dtype.kind != "f" or not np.isinf(values).any():
        return True
    meant = pc.match_substring_regex(column, r"(?i)inf")
    return bool(np.array_equal(np.isinf(values), as_numpy(meant)))  # (1e400 is a number, and no float)


def _type(found: dict[str, bool]) -> np.dtype[Any]:
    text = np.dtypes.StringDType()
    if not found.get("filled"):
        return text
    if found["truth"] and not found["empty"]:
        return np.dtype("?")
    if found["whole"] and not found["empty"]:
        return np.dtype("i8")
    if found["real"]:  # numbers of so many digits may be names; a float would lose some of them
        return text if found["long"] else np.dtype("f8")
    return np.dtype("M8[D]") if found["day"] else np.dtype("M8[ns]") if found["time"] else text


def _values(column: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "T":
        return np.array(column.to_pylist(), dtype)
    if dtype.kind == "M":
        texts = [text.removesuffix("Z") or "NaT" for text in column.to_pylist()]
        return np.array(texts, dtype) if texts else np.empty(0, dtype)
    if dtype.kind == "b":
        column = pc.utf8_lower(column)
    if dtype.kind == "f":
        column = pc.if_else(pc.equal(column, one("")), one("nan"), column)
    found = pc.cast(column, pa.from_numpy_dtype(dtype))
    return np.array(as_numpy(found), dtype)
