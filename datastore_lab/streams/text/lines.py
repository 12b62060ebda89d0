"""Lines and cells of a table, by RFC 4180: no thread, no memory beyond that of the text itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datastore_lab.errors import Corrupt, EngineError
from datastore_lab.streams import disk
from datastore_lab.streams.columns import numbers, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_STEP = 1 << 20
_LONGEST = 1 << 26


def stretches(path: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a table into stretches of whole lines, of about 1 MB each.

    A line ends at a line feed before which the number of quotes is even (RFC 4180).

    Raises
    ------
    EngineError
        If a line is longer than 64 MB.
    """
    while start < stop:
        end, reach = start, _STEP
        while end == start:
            if reach > _LONGEST:
                raise EngineError(f"{path!r} has a line of more than 64 MB: that is no table", key=path)
            raw = disk.read(path, start, min(start + reach, stop))
            if not raw:
                return
            end = start + (len(raw) if start + len(raw) >= stop else _whole(raw))
            reach *= 4
        yield start, end
        start = end


def _whole(raw: bytes) -> int:
    """Give the number of bytes up to the end of the last whole line."""
    ends = _outside(np.frombuffer(raw, np.uint8), "\n")
    return int(ends[-1]) + 1 if len(ends) else 0


def _outside(points: NDArray[Any], marks: str) -> NDArray[Any]:
    """Find marks that do not stand in quotes."""
    found = points == ord(marks[0])
    for mark in marks[1:]:
        found |= points == ord(mark)
    ends = np.flatnonzero(found)
    quotes = np.flatnonzero(points == ord('"'))
    return ends[np.searchsorted(quotes, ends) % 2 == 0] if len(quotes) else ends


def parse(
    raw: bytes | memoryview, width: int, wanted: list[int], path: str, delimiter: str = ","
) -> list[Any]:
    r"""Take lines apart into the wanted columns of text.

    Parameters
    ----------
    raw : bytes
        Whole lines.
    width : int
        How many columns there are.
    wanted : list of int
        Which of them are given.
    path : str
        For messages.
    delimiter : str

    Raises
    ------
    Corrupt
        If a line has another number of cells, a quote is never closed, or it is no UTF-8.

    Examples
    --------
    >>> [column.to_pylist() for column in parse(b'1,"a, b"\n2,\n', 2, [0, 1], "x.csv")]
    [['1', '2'], ['a, b', '']]
    """
    if not len(raw):
        return [texts([]) for _ in wanted]
    text = bytes(raw) if raw[-1] == ord("\n") else bytes(raw) + b"\n"
    points = np.frombuffer(text, np.uint8)
    ends = _outside(points, delimiter + "\n")
    lines = np.flatnonzero(points[ends] == ord("\n"))
    whole = len(ends) > 0 and ends[-1] == len(text) - 1  # else a quote is open, maybe since many lines
    if not whole or len(ends) % width or not np.array_equal(lines, np.arange(width - 1, len(ends), width)):
        raise _uneven(text, ends[lines], np.diff(lines, prepend=-1), width, path)
    offsets = np.concatenate([[0], ends + 1]).astype("<i4")
    cells = pa.Array.from_buffers(pa.string(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    try:
        cells.validate(full=True)
    except pa.ArrowException as error:
        raise Corrupt(f"{path!r} is no text in UTF-8: {error}", key=path) from error
    rows = np.arange(0, len(ends), width)
    return [_plain(cells.take(numbers(rows + index))) for index in wanted]


def _uneven(text: bytes, ends: NDArray[Any], counts: NDArray[Any], width: int, path: str) -> Corrupt:
    """Make the error for the first line that has another number of cells."""
    bad = int(np.argmax(counts != width)) if (counts != width).any() else len(counts)
    start = int(ends[bad - 1]) + 1 if bad else 0
    if bad == len(counts):
        what = "ends within quotes that were never closed, from"
    elif b"\r" in text[start : int(ends[bad])].rstrip():
        what = "has lines that end as on an old Macintosh; save it with other line ends. The first is"
    else:
        what = f"has a line of {counts[bad]} cells where {width} should be:"
    shown = text[start : start + 60].decode(errors="replace").rstrip()
    return Corrupt(f"{path!r} {what} {shown!r}", key=path)


def _plain(cells: Any) -> Any:
    """Take what separates cells, and quotes, away."""
    bare = pc.utf8_slice_codeunits(cells, 0, -1)
    bare = pc.if_else(pc.ends_with(bare, "\r"), pc.utf8_slice_codeunits(bare, 0, -1), bare)
    in_quotes = pc.and_(pc.starts_with(bare, '"'), pc.ends_with(bare, '"'))
    if not pc.any(in_quotes).as_py():
        return bare
    inner = pc.replace_substring(pc.utf8_slice_codeunits(bare, 1, -1), '""', '"')
    return pc.if_else(in_quotes, inner, bare)
