"""Checksums that find every flipped bit: one per block of payload, and a seal over everything else.

Every engine stores them in the way of its medium. Where the medium brings a checksum of its own it takes the
place of ours: crc32c ends a chunk of Zarr, and the seal of a Parquet folder covers the text of its YAML.

- a **block sum** is the 64-bit XXH3 of at most `BLOCK` bytes of an array as it is stored, or of one chunk;
- a **seal** is the 128-bit XXH3 of a record's kind, its arrays' names, types, shapes and dimensions, and its
  attributes, as canonical JSON. A node that another program made has neither.

A stream has besides, once it has ended, a `RowSum` of each of its arrays among its attributes, `CHECKSUMS`:
of the rows themselves, so that it is the same in every format.

A record that grows has a **birth** besides: a random number that it keeps while rows are added, and that
tells it from another one that was put in its place.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xxhash

from datastore_lab import media
from datastore_lab.errors import Corrupt, Newer
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from datastore_lab.records import Stat

BLOCK = 1 << 20
"""Largest number of bytes under one sum."""

LAYOUT = 1
"""Version of the layout on disk, kept as ``lab_layout`` where a store begins."""

CHECKSUMS = "checksums"
"""Attribute of a stream that has ended: ``{array: sum of its rows}``, as `RowSum` gives it."""

BIRTH = "lab_birth"
SEAL = "lab_seal"
SUMS = "lab_sums"
VERSION = "lab_layout"


def seal(stat: Stat) -> str:
    """Give the checksum over all of a record but its payload, as 32 hexadecimal digits.

    Chunk shapes and sizes in bytes are no part of it: another engine may choose others.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo, Stat
    >>> one = Stat("array", {"a": ArrayInfo("<f8", (2,), ("x",), 16, None)}, {"unit": "V"})
    >>> seal(one) == seal(one._replace(meta={"unit": "mV"}))
    False
    """
    arrays = [[name, info.dtype, list(info.shape), list(info.dims)] for name, info in stat.arrays.items()]
    text = json.dumps(
        [stat.kind, sorted(arrays), media.tag_floats(stat.meta)],
        ensure_ascii=True,
        allow_nan=False,
        separators=(",", ":"),
        sort_keys=True,
    )
    return xxhash.xxh3_128_hexdigest(text.encode())


def check_seal(key: Key, stat: Stat, found: object, url: str) -> None:
    """Compare a record with the seal that was stored beside it.

    Parameters
    ----------
    key : Key
    stat : Stat
        As it was read, without the seal.
    found : object
        The stored seal; None where there is none.
    url : str
        The store, for the message.

    Raises
    ------
    Corrupt
        If they differ.
    """
    if found != seal(stat):
        raise Corrupt(
            f"{show(key)!r} in {url}: its description (type, dimensions or attributes) is not as it was "
            "written; store.record() and store[...] refuse it. If another program changed it on purpose, "
            "store.repair(key, accept=True) takes it as it is; else restore it from a copy",
            key=key,
        )


def birth() -> str:
    """Give a number to a record that begins to grow, as 16 hexadecimal digits."""
    return secrets.token_hex(8)


def fingerprint(stat: Stat, sums: Mapping[str, object], born: object = None) -> str:
    """Give what `Engine.fingerprint` gives of a record, as 32 hexadecimal digits.

    Parameters
    ----------
    stat : Stat
        Its attributes do not count. Of a record that grows nothing but its birth does.
    sums : mapping of str to anything with a repr
        What tells the payload of each array from another: its sums.
    born : str, optional
        The `birth` of a record that grows.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo, Stat
    >>> one = Stat("array", {"a": ArrayInfo("<f8", (2,), ("x",), 16, None)}, {"unit": "V"})
    >>> fingerprint(one, {"a": [1]}) == fingerprint(one._replace(meta={}), {"a": [1]})
    True
    >>> fingerprint(one, {"a": [1]}) == fingerprint(one, {"a": [2]})
    False
    """
    if isinstance(born, str):
        return xxhash.xxh3_128_hexdigest(f"{BIRTH} {born}".encode())
    return xxhash.xxh3_128_hexdigest(f"{seal(stat._replace(meta={}))} {sorted(sums.items())!r}".encode())


def check_layout(found: object, url: str) -> None:
    """Refuse a store that a later version of this package made.

    Raises
    ------
    Newer
    """
    if isinstance(found, int) and found > LAYOUT:
        raise Newer(
            f"{url} has layout {found}, and this version of datastore_lab knows layouts up to {LAYOUT}; "
            "install a newer version to open it",
            key=url,
        )


def known_layout(found: object) -> int | None:
    """Give the version of a layout as it was read; None if that is none.

    Examples
    --------
    >>> known_layout(1), known_layout("1"), known_layout(None)
    (1, None, None)
    """
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def block_sum(buffer: Buffer) -> int:
    """Give the sum of one block or chunk."""
    return xxhash.xxh3_64_intdigest(buffer)


def block_sums(buffer: Buffer, size: int = BLOCK) -> NDArray[np.uint64]:
    """Give the sums of consecutive blocks of `size` bytes; the last may be shorter.

    Examples
    --------
    >>> len(block_sums(bytes(2_500_000)))
    3
    """
    import numpy as np

    return np.fromiter(map(block_sum, blocks(buffer, size)), np.uint64)


class RunningSums:
    """Sums of the blocks of bytes that come in pieces.

    Parameters
    ----------
    sums : sequence of int, optional
        Of whole blocks before.
    rest : buffer, optional
        What follows these, of less than a block.

    Examples
    --------
    >>> running = RunningSums()
    >>> running.add(bytes(1_500_000)); running.add(bytes(1_000_000))
    >>> running.sums() == block_sums(bytes(2_500_000)).tolist()
    True
    """

    def __init__(self, sums: Sequence[int] = (), rest: Buffer = b"") -> None:
        self._whole, self._state = list(sums), xxhash.xxh3_64(rest)
        self._filled = memoryview(rest).nbytes

    def add(self, buffer: Buffer) -> None:
        """Go on with contiguous bytes."""
        view = memoryview(buffer).cast("B")
        while view:
            part = view[: BLOCK - self._filled]
            self._state.update(part)
            self._filled += len(part)
            if self._filled == BLOCK:
                self._whole.append(self._state.intdigest())
                self._state.reset()
                self._filled = 0
            view = view[len(part) :]

    def sums(self) -> list[int]:
        """Give the sums of all blocks, the last of which may not be full yet."""
        return [*self._whole, self._state.intdigest()] if self._filled else list(self._whole)


class RowSum:
    """Sum over the rows of an array: the same wherever they lie, and however they came.

    It is the XXH3-128 of the rows one after another, each in C order, little-endian, fields of structured
    types without the space between them. Text of variable length counts as its number of bytes in UTF-8, as
    a 64-bit integer, and these bytes.

    Parameters
    ----------
    dtype : dtype
        Of the rows. Long floats have no sum: they have bytes that mean nothing, and no two computers agree.

    Examples
    --------
    >>> import numpy as np
    >>> one, other = RowSum(np.dtype("<i4")), RowSum(np.dtype(">i4"))
    >>> one.add(np.arange(3, dtype="<i4")); one.add(np.arange(3, 5, dtype="<i4"))
    >>> other.add(np.arange(5, dtype=">i4"))
    >>> one.text() == other.text(), one.text()[:9]
    (True, 'xxh3_128:')
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._form = _packed(dtype)
        self._state = xxhash.xxh3_128()

    def add(self, rows: NDArray[Any]) -> None:
        """Go on with rows of the type, shape (n, ...)."""
        import numpy as np

        if self._form is None:
            return
        if self._form.kind == "T":
            self._state.update(_texts(np.asarray(rows)))
            return
        made: Any = np.ascontiguousarray(rows, self._form)
        if made.nbytes:
            self._state.update(made.reshape(-1).view(np.uint8))

    def text(self) -> str | None:
        """Give the sum, with the name of how it was made; None for a type that has none."""
        return None if self._form is None else f"xxh3_128:{self._state.hexdigest()}"


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Give the form of a type in which its rows are summed up; None if there is none."""
    import numpy as np

    if dtype.subdtype is not None:
        base = _packed(dtype.subdtype[0])
        return None if base is None else np.dtype((base, dtype.subdtype[1]))
    if dtype.names is not None:
        fields = [(name, _packed(dtype[name])) for name in dtype.names]
        return None if any(form is None for _, form in fields) else np.dtype(fields)
    if dtype.kind in "TO":
        return dtype if dtype.kind == "T" else None
    long = dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)
    return None if long else dtype.newbyteorder("<")


def _texts(rows: NDArray[Any]) -> bytes:
    found = [text.encode() for text in rows.reshape(-1).tolist()]
    return b"".join(part for text in found for part in (len(text).to_bytes(8, "little"), text))


def blocks(buffer: Buffer, size: int = BLOCK) -> Iterator[memoryview]:
    """Cut contiguous bytes into blocks."""
    view = memoryview(buffer).cast("B")
    for start in range(0, len(view), size):
        yield view[start : start + size]


def damaged(key: Key, name: str, where: Any, url: str) -> Corrupt:
    """Make the error for a block that is not as it was written."""
    return Corrupt(
        f"{name!r} of {show(key)!r} in {url} is damaged: {where} is not as it was written (checksum). "
        "What lies elsewhere can still be read in parts; restore the rest from a copy",
        key=key,
    )
