"""Arrays as parts of bounded size: where each byte lies, its sum, its compression, and reading a selection.

An array is seen as its bytes in C order, with the bytes of an item as one more axis. Axes are cut at one
axis only: all after it lie whole in a part, of those before it a part holds one index. A selection therefore
needs the parts that it touches, and no others.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sqlalchemy as sa
import xxhash

from datastore_lab.engines.sql.queries import Query
from datastore_lab.engines.sql.tables import part as table
from datastore_lab.errors import Corrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

PART = 1 << 20
"""Bytes in a part, before compression, of an array that was written whole."""

GROWING = 1 << 18
"""Bytes in a part of an array that grows: the last one is written again at every flush."""

_FETCHED = 8
AHEAD = 1 << 16
"""Parts of up to so many bytes are read before anybody asks."""

_SMALLEST = 1 << 11
_WORTH_IT = 0.9
_UNCHECKED = 1 << 26
RAW, ZSTD = 0, 1


class Block(NamedTuple):
    """A grid of bytes that is kept in parts.

    Attributes
    ----------
    id : int
        Number of the array; never used again within a store.
    shape : tuple of int
        Of bytes: the last axis is the bytes of an item.
    part : int
        Largest number of bytes in a part.
    """

    id: int
    shape: tuple[int, ...]
    part: int

    @property
    def nbytes(self) -> int:
        """All bytes, before compression."""
        return math.prod(self.shape)

    @property
    def inner(self) -> int:
        """Bytes below one index of the axis that is cut."""
        return _grid(self.shape, self.part)[1]

    @property
    def axis(self) -> int:
        """The axis that is cut: the first, unless a single index of it is too large for a part."""
        return _grid(self.shape, self.part)[0]

    @property
    def step(self) -> int:
        """Indices of the cut axis in a part."""
        return _grid(self.shape, self.part)[2]

    @property
    def across(self) -> int:
        """Parts along the cut axis."""
        return -(-self.shape[self.axis] // self.step)

    @property
    def pieces(self) -> int:
        """Parts in all."""
        return math.prod(self.shape[: self.axis]) * self.across if self.nbytes else 0

    def part_shape(self, number: int) -> tuple[int, ...]:
        """Give the shape of a part over the cut axis and those after it."""
        first = number % self.across * self.step
        return (min(self.step, self.shape[self.axis] - first), *self.shape[self.axis + 1 :])

    def part_size(self, number: int) -> int:
        """Give the bytes of a part."""
        return math.prod(self.part_shape(number))

    def numbered(self, data: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Cut all bytes into parts."""
        for number in range(self.pieces):
            outer, along = divmod(number, self.across)
            lead: Any = np.unravel_index(outer, self.shape[: self.axis]) if self.axis else ()
            yield number, data[(*lead, slice(along * self.step, (along + 1) * self.step))]


@functools.lru_cache(4096)
def _grid(shape: tuple[int, ...], part: int) -> tuple[int, int, int]:
    """Give the axis that is cut, the bytes below one index of it, and its indices in a part."""
    size, cut = 1, 0
    for axis in reversed(range(1, len(shape))):
        size *= shape[axis]
        if size > part:
            cut = axis
            break
    inner = math.prod(shape[cut + 1 :])
    return cut, inner, max(1, part // max(1, inner))


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """See an array as its bytes, with one more axis; a copy only where its items do not lie apart."""
    own = np.asarray(array)
    shape = (*own.shape, own.dtype.itemsize)
    if not own.nbytes:
        return np.empty(shape, np.uint8)
    if own.flags.c_contiguous:
        return own.reshape(-1).view(np.uint8).reshape(shape)
    return np.ascontiguousarray(own).reshape(-1).view(np.uint8).reshape(shape)


def from_bytes(data: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo `as_bytes`."""
    shape = data.shape[:-1]
    return data.reshape(-1).view(dtype).reshape(shape) if data.size else np.zeros(shape, dtype)


def part_row(store: int, array: int, number: int, raw: bytes) -> dict[str, Any]:
    """Make the row of a part: sum, and compressed bytes if these are fewer."""
    small = _compressed(raw)
    worth = len(small) < _WORTH_IT * len(raw)
    return {
        "store": store,
        "array": array,
        "number": number,
        "size": len(raw),
        "codec": ZSTD if worth else RAW,
        "sum": part_sum(store, array, number, raw),
        "bytes": small if worth else raw,
    }


def part_sum(store: int, array: int, number: int, raw: bytes) -> int:
    """Give the XXH3-64 of a part, seeded with its place so that no part passes for another."""
    seed = xxhash.xxh3_64_intdigest(struct.pack("<3q", store, array, number))
    return signed(xxhash.xxh3_64_intdigest(raw, seed))


def signed(number: int) -> int:
    """Give 64 bits as the signed number that databases have."""
    return number - (1 << 64) if number >> 63 else number


def unpacked(row: Any, size: int) -> bytes:
    """Give the bytes of a part as they were written.

    Raises
    ------
    Corrupt
        If they are not; never more than `size` bytes are made of it.
    """
    if not type(row.store) is type(row.array) is type(row.number) is int:
        raise Corrupt(f"part {row.number!r:.30}", key=row.number)
    raw = stored_bytes(row, size)
    if row.size != size or len(raw) != size or part_sum(row.store, row.array, row.number, raw) != row.sum:
        raise Corrupt(f"part {row.number}", key=row.number)
    return raw


def stored_bytes(row: Any, size: int) -> bytes:
    """Unpack a part, without checking its sum."""
    return bytes(row.bytes) if row.codec == RAW else _decompressed(row.bytes, size)


def _compressed(raw: bytes) -> bytes:
    if len(raw) < _SMALLEST:  # to set up zstd takes longer than to write so little
        return raw
    import pyarrow as pa

    return bytes(pa.compress(raw, codec="zstd", asbytes=True))


def _decompressed(small: bytes, size: int) -> bytes:
    import pyarrow as pa

    try:
        return bytes(pa.decompress(small, decompressed_size=size, codec="zstd", asbytes=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Corrupt(f"a part that does not unpack ({error})") from error


class Part(NamedTuple):
    """One row of the table, as `_ONE` and `_SOME` give it."""

    store: int
    array: int
    number: int
    size: int
    codec: int
    sum: int
    bytes: bytes


def _parts(chosen: Any) -> Query:
    return Query(sa.select(table).where((table.c.store == sa.bindparam("store", type_=sa.Integer)) & chosen))


_OF_ARRAY = table.c.array == sa.bindparam("array", type_=sa.BigInteger)
_NUMBERS = [sa.bindparam(f"number{place}", type_=sa.BigInteger) for place in range(_FETCHED)]
_ONE = _parts(_OF_ARRAY & (table.c.number == _NUMBERS[0]))
_SOME = _parts(_OF_ARRAY & table.c.number.in_(_NUMBERS))
_FIRST = _parts(table.c.array.in_(_NUMBERS) & (table.c.number == sa.literal_column("0")))


class Reader:
    """Reads parts of one store over one connection."""

    def __init__(self, connection: sa.Connection, store: int) -> None:
        self._connection, self._store = connection, store
        self._ahead: dict[int, Part] = {}

    def ahead(self, blocks: Iterable[Block]) -> None:
        """Fetch the only parts of what is small, many in one statement, for `select` to come."""
        small = [block.id for block in blocks if block.pieces == 1 and block.nbytes <= AHEAD]
        small = [number for number in small if number not in self._ahead]
        for some in _batched(small, _FETCHED) if len(small) > 1 else ():
            for row in self._ask(_FIRST, some, {}):
                self._ahead[row.array] = row

    def select(self, block: Block, selection: Sequence[slice]) -> NDArray[np.uint8]:
        """Read what slices with explicit bounds choose of all axes but the last."""
        axes = [range(*chosen.indices(n)) for chosen, n in zip(selection, block.shape, strict=False)]
        axes.append(range(block.shape[-1]))
        shape = tuple(map(len, axes))
        if math.prod(shape) == 0:
            return np.empty(shape, np.uint8)
        if math.prod(shape) > _UNCHECKED:
            self._check_stored(block)
        found = np.empty(shape, np.uint8)
        self._fill(found, block, axes)
        return found

    def hold(self, row: Part) -> None:
        """Take a part that was read already."""
        self._ahead[row.array] = row

    def only(self, array: int, size: int) -> bytes:
        """Read the only part of a block."""
        row = self._ahead.pop(array, None)
        if row is None:
            row = next(self._ask(_ONE, [0], {"array": array}), None)
        if row is None or row.number != 0:
            raise Corrupt("part 0 (missing)", key=0)
        return unpacked(row, size)

    def _fill(self, found: NDArray[np.uint8], block: Block, axes: list[range]) -> None:
        cut, step = block.axis, block.step
        inside: Any = tuple(_as_slice(axis) for axis in axes[cut + 1 :])
        wanted = _grouped(block, axes)
        for number, raw in self.fetch(block, wanted):
            outer, rows = wanted[number]
            data = np.frombuffer(raw, np.uint8).reshape(block.part_shape(number))
            first = number % block.across * step
            chosen = axes[cut][rows]
            local = range(chosen.start - first, chosen.stop - first, chosen.step)
            found[(*outer, rows)] = data[(_as_slice(local), *inside)]

    def fetch(self, block: Block, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Read parts by their numbers, a few at a time, each checked against its sum."""
        for some in _batched(numbers, _FETCHED):
            missing = set(some)
            for row in self._rows(block.id, some):
                if type(row.number) is not int:
                    continue
                missing.discard(row.number)
                yield row.number, unpacked(row, block.part_size(row.number))
            if missing:
                raise Corrupt(f"part {min(missing)} (missing)", key=min(missing))

    def _rows(self, array: int, numbers: list[int]) -> Iterator[Part]:
        if array in self._ahead:
            return iter([self._ahead.pop(array)])
        return self._ask(_ONE if len(numbers) == 1 else _SOME, numbers, {"array": array})

    def _ask(self, query: Query, numbers: list[int], values: dict[str, int]) -> Iterator[Part]:
        padded = numbers if query is _ONE else [*numbers, *numbers[:1] * (_FETCHED - len(numbers))]
        named = {f"number{place}": number for place, number in enumerate(padded)}
        return map(Part._make, query.rows(self._connection, {"store": self._store, **values, **named}))

    def _check_stored(self, block: Block) -> None:
        """Refuse an array that claims more than is there, before memory is set aside for it."""
        where = (table.c.store == self._store) & (table.c.array == block.id)
        count, size = self._connection.execute(
            sa.select(sa.func.count(), sa.func.sum(table.c.size)).where(where)
        ).one()
        if (count, int(size or 0)) != (block.pieces, block.nbytes):
            raise Corrupt(f"the whole ({count} of {block.pieces} parts are there)", key=block.id)


def _grouped(block: Block, axes: list[range]) -> dict[int, tuple[Any, slice]]:
    """Give the parts that are touched: where each one goes in the result."""
    cut, lead = block.axis, block.shape[: block.axis]
    along = _runs(axes[cut], block.step)
    wanted: dict[int, tuple[Any, slice]] = {}
    for outer in itertools.product(*(range(len(axis)) for axis in axes[:cut])):
        place = [axis[index] for axis, index in zip(axes, outer, strict=False)]
        base = int(np.ravel_multi_index(place, lead)) * block.across if lead else 0
        for number, rows in along:
            wanted[base + number] = outer, rows
    return wanted


def _runs(axis: range, step: int) -> list[tuple[int, slice]]:
    """Group the indices of one axis by the part in which they lie; they come in order, up or down."""
    runs, start = [], 0
    while start < len(axis):
        number = axis[start] // step
        if axis.step > 0:
            stop = start + -(-((number + 1) * step - axis[start]) // axis.step)
        else:
            stop = start + (axis[start] - number * step) // -axis.step + 1
        runs.append((number, slice(start, min(stop, len(axis)))))
        start = stop
    return runs


def _as_slice(chosen: range) -> slice:
    return slice(chosen.start, None if chosen.stop < 0 else chosen.stop, chosen.step)


def _batched(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(numbers)
    while some := list(itertools.islice(left, size)):
        yield some
