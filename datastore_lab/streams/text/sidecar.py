"""What lies beside a table of text: types, attributes, how many rows count, and sums. Readable, as JSON."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import dtypes, integrity, media
from datastore_lab.errors import Corrupt, LabError, NotStorable
from datastore_lab.integrity import LAYOUT, SEAL, SUMS, VERSION
from datastore_lab.records import Stat
from datastore_lab.streams import disk
from datastore_lab.streams.ipc.read import info as describe
from datastore_lab.streams.names import MEND
from datastore_lab.streams.text import cells

if TYPE_CHECKING:
    import numpy as np

    from datastore_lab.keys import Key

SIDECAR = ".json"
MOST_COLUMNS = 16_384
"""As many as a spreadsheet takes."""

_SUM = re.compile(rb'"lab_sum": "([0-9a-f]{16})"')
_LONGEST = 1 << 28


class Sidecar(NamedTuple):
    """The contents of a sidecar.

    Attributes
    ----------
    key : Key
    stat : Stat
        With the rows that count.
    size : int
        Bytes of the table that count.
    pieces : list of (int, int)
        First row and first byte of each stretch of about 1 MB.
    sums : list of int
        Of the blocks of those bytes.
    closed : bool
    layout : int
    """

    key: Key
    stat: Stat
    size: int
    pieces: list[tuple[int, int]]
    sums: list[int]
    closed: bool
    layout: int = LAYOUT


def to_bytes(sidecar: Sidecar) -> bytes:
    """Write a sidecar as text, with a sum over all of it."""
    stat = sidecar.stat
    rows = next((info.shape[0] for info in stat.arrays.values()), 0)
    arrays = {
        name: {
            "dtype": info.dtype,
            "form": cells.form(dtypes.parse(info.dtype)),
            "shape": list(info.shape),
            "dims": list(info.dims),
        }
        for name, info in stat.arrays.items()
    }
    content = {
        VERSION: LAYOUT,
        "lab_kind": stat.kind,
        "lab_key": list(sidecar.key),
        "lab_meta": dict(stat.meta),
        "lab_arrays": arrays,
        "rows": rows,
        "bytes": sidecar.size,
        "closed": sidecar.closed,
        "index": [list(piece) for piece in sidecar.pieces],
        SUMS: [f"{one:016x}" for one in sidecar.sums],
        SEAL: integrity.seal(stat),
    }
    text = media.to_json(content, indent=1)
    raw = f'{text[:-2]},\n "lab_sum": "{"0" * 16}"\n}}\n'.encode()
    return raw[:-20] + b"%016x" % integrity.block_sum(raw) + raw[-4:]


def glimpse(path: str, key: Key) -> bool:
    """Whether a table surely is a finished stream, by the first bytes of its sidecar in its place."""
    start = disk.ends(path + SIDECAR, 4096, 0)[0]
    said = media.to_json({"lab_key": list(key)}, indent=1)[1:-2].encode()
    return said in start and b'\n "closed": true' in start and os.path.lexists(path)


def from_bytes(raw: bytes, path: str, *, trusting: bool = False) -> Sidecar:
    """Read a sidecar.

    Raises
    ------
    Corrupt
        If it is not as it was written.
    """
    found = _SUM.search(raw)
    if not trusting:
        zeroed = raw[: found.start(1)] + b"0" * 16 + raw[found.end(1) :] if found else b""
        if found is None or int(found[1], 16) != integrity.block_sum(zeroed):
            raise Corrupt(
                f"{path!r} is not as it was written. If it was changed on purpose, "
                "store.repair(key, accept=True) takes it as it is; else restore it from a copy",
                key=path,
            )
    try:
        content = media.from_json(raw)
        integrity.check_layout(content[VERSION], path)
        return _sidecar(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LabError):
            raise
        raise Corrupt(f"{path!r} does not describe a table: {error!r}", key=path) from error


def _sidecar(content: dict[str, Any]) -> Sidecar:
    arrays = {}
    for name, one in content["lab_arrays"].items():
        shape, dtype = tuple(map(int, one["shape"])), dtypes.parse(one["dtype"])
        arrays[name] = describe(dtype, shape, tuple(one["dims"]), None)
    stat = Stat(content["lab_kind"], arrays, content["lab_meta"])
    pieces = [(int(row), int(byte)) for row, byte in content["index"]]
    sums = [int(one, 16) for one in content[SUMS]]
    key, size, closed = tuple(content["lab_key"]), int(content["bytes"]), bool(content["closed"])
    return Sidecar(key, stat, size, pieces, sums, closed, int(content[VERSION]))


def place(path: str) -> str:
    """Say where the sidecar of a table is.

    A table that was written anew is renamed before its sidecar: between the two the new sidecar counts.
    """
    new = path + MEND
    return new + SIDECAR if os.path.exists(new + SIDECAR) and not os.path.exists(new) else path + SIDECAR  # noqa: PTH110


def publish(source: str, target: str) -> None:
    """Put a finished table and its sidecar into a place."""
    os.replace(source, target)  # noqa: PTH105
    media.sync_folder(os.path.dirname(target))  # noqa: PTH120 (from here on `place` finds both)
    settle(target)


def settle(path: str, *, durable: bool = True) -> None:
    """Finish a table that was written anew, as far as it had come."""
    found = place(path)
    if found != path + SIDECAR:
        os.replace(found, path + SIDECAR)  # noqa: PTH105
        if durable:
            media.sync_folder(os.path.dirname(path))  # noqa: PTH120


def discard(path: str) -> None:
    """Remove a table that was begun and never put into its place."""
    for name in (path + SIDECAR, path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108


def load(path: str, *, trusting: bool = False) -> Sidecar:
    """Read the sidecar of a table."""
    found = place(path)
    return from_bytes(disk.read(found, 0, _LONGEST), found, trusting=trusting)


def save(path: str, sidecar: Sidecar, *, durable: bool = True) -> None:
    """Replace the sidecar of a table, as a whole."""
    new = path + SIDECAR + "-new"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        disk.write_at(handle, to_bytes(sidecar), 0)
        if durable:
            os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)  # noqa: PTH108
        raise
    finally:
        os.close(handle)
    os.replace(new, path + SIDECAR)  # noqa: PTH105
    if durable:
        media.sync_folder(os.path.dirname(path))  # noqa: PTH120


def column_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Name the columns of an array whose rows have a shape.

    Examples
    --------
    >>> column_names("v", ()), column_names("m", (2, 2))
    (['v'], ['m[0][0]', 'm[0][1]', 'm[1][0]', 'm[1][1]'])
    """
    import itertools

    return [
        name + "".join(f"[{index}]" for index in place)
        for place in itertools.product(*(range(length) for length in shape))
    ]


def check_columns(stat: Stat) -> list[str]:
    """Give the header of a table, or refuse what it can't hold.

    Raises
    ------
    NotStorable
    """
    import math

    count = sum(math.prod(info.shape[1:]) for info in stat.arrays.values())
    if not 0 < count <= MOST_COLUMNS:
        raise NotStorable(
            f"a table of text has 1 to {MOST_COLUMNS} columns, not {count}; use HDF5 or Zarr for larger "
            "arrays"
        )
    for name, info in stat.arrays.items():
        dtype: np.dtype[Any] = dtypes.parse(info.dtype)
        if dtype.itemsize == 0 and dtype.kind != "U":
            raise NotStorable(f"a table of text can't hold {name!r}: its elements have no bytes", key=name)
    return [text for name, info in stat.arrays.items() for text in column_names(name, info.shape[1:])]


def quoted(text: str) -> str:
    """Quote a cell where that is needed (RFC 4180).

    Examples
    --------
    >>> quoted("plain"), quoted('a "b", c')
    ('plain', '"a ""b"", c"')
    """
    if text and not set(text) & set(',"\r\n\0') and text == text.strip():
        return text
    return '"' + text.replace('"', '""') + '"'
