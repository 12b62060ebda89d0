"""Checksums of blocks: which rows or items lie under which sum, and where the sums are kept.

The sum of an array that is one block stands in the seal of its node (see `datastore_lab.engines.hdf5.seals`).
Others are on the dataset: ``lab_sums``, or, where they are more than `PAGE` or become more, pages of so many,
``lab_sums.0``, ``lab_sums.1`` and so on, so that a flush of a long stream rewrites the last page only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash
from h5py import h5a, h5d, h5s, h5t

from datastore_lab import integrity

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGE = 512
"""Number of sums in one attribute."""

_NAME = integrity.SUMS
_U64 = h5t.STD_U64LE
_TEXT_ITEM = 16  # bytes that HDF5 keeps in place of a text of variable length


class Blocks(NamedTuple):
    """How an array is cut into blocks.

    Attributes
    ----------
    total : int
        Number of blocks.
    each : int
        Number of units in a block; the last may have fewer.
    units : int
        Number of units in all.
    rows : bool
        Whether a unit is a row, along axis 0, rather than a single item in C order.
    """

    total: int
    each: int
    units: int
    rows: bool


def cut(shape: tuple[int, ...], native: np.dtype[Any], chunk: tuple[int, ...] | None) -> Blocks:
    """Cut an array into chunks, or into blocks of at most 1 MB of whole items.

    Examples
    --------
    >>> cut((3, 1000), np.dtype("f8"), None)
    Blocks(total=1, each=131072, units=3000, rows=False)
    >>> cut((300, 1000), np.dtype("f8"), (131, 1000))
    Blocks(total=3, each=131, units=300, rows=True)
    """
    items = 1
    for size in shape:
        items *= size
    if chunk is None and not native.hasobject:
        each = max(1, integrity.BLOCK // max(1, native.itemsize))
        return Blocks(-(-items // each), each, items, rows=False)
    units = shape[0] if shape else 1
    inner = max(1, items // max(1, units))
    each = chunk[0] if chunk else max(1, integrity.BLOCK // (_TEXT_ITEM * inner))
    return Blocks(-(-units // each) if items else 0, each, units, rows=True)


def state(data: NDArray[Any] | None = None) -> xxhash.xxh3_64:
    """Begin a sum that goes on, see `add`."""
    begun = xxhash.xxh3_64()
    if data is not None:
        add(begun, data)
    return begun


def add(begun: xxhash.xxh3_64, data: NDArray[Any]) -> None:
    """Go on with a sum: rows added one after the other give that of the whole."""
    begun.update(_bytes(data))


def of(data: NDArray[Any]) -> int:
    """Give the sum of one block: of its bytes as stored, or of its texts, each after its length."""
    return integrity.block_sum(_bytes(data))


def of_all(data: NDArray[Any], blocks: Blocks) -> list[int]:
    """Give the sums of all blocks of a C-ordered array."""
    flat = data if blocks.rows and data.shape else data.reshape(-1)
    return [of(flat[at : at + blocks.each]) for at in range(0, blocks.total * blocks.each, blocks.each)]


def _bytes(data: NDArray[Any]) -> Any:
    if data.dtype.hasobject:
        raw = [
            item if isinstance(item, bytes) else str(item or "").encode()
            for item in data.reshape(-1).tolist()
        ]
        return b"".join(b"%d:%s" % (len(text), text) for text in raw)
    if data.dtype.kind in "biuf" and data.flags.c_contiguous:
        return data
    return data.reshape(-1).view(np.uint8).data


def put(dataset: Any, values: list[int]) -> None:
    """Keep the sums of an array that stays as long as it is."""
    if len(values) <= PAGE:
        _create(dataset, _NAME, np.array(values, "<u8"))
        return
    for number, at in enumerate(range(0, len(values), PAGE)):
        _create(dataset, f"{_NAME}.{number}", np.array(values[at : at + PAGE], "<u8"))


def put_some(dataset: Any, values: Mapping[int, int]) -> None:
    """Set the sums of some blocks of a growing array."""
    for number in sorted({index // PAGE for index in values}):
        page = _read(dataset, f"{_NAME}.{number}")
        if page is None or len(page) != PAGE:
            page = np.zeros(PAGE, "<u8")
        for index, value in values.items():
            if index // PAGE == number:
                page[index % PAGE] = value
        _write(dataset, f"{_NAME}.{number}", page)


def get(dataset: Any, wanted: Iterable[int]) -> dict[int, int]:
    """Give the sums of some blocks, as far as they are there."""
    found: dict[int, int] = {}
    pages: dict[int, NDArray[Any] | None] = {}
    for index in wanted:
        number = index // PAGE
        if number not in pages:
            pages[number] = _page(dataset, number)
        page = pages[number]
        if page is not None and index % PAGE < len(page):
            found[index] = int(page[index % PAGE])
    return found


def discard(dataset: Any) -> None:
    """Remove all sums."""
    names: list[bytes] = []
    h5a.iterate(dataset, names.append)
    for name in names:
        if name.startswith(_NAME.encode()):
            h5a.delete(dataset, name)


def _page(dataset: Any, number: int) -> NDArray[Any] | None:
    page = _read(dataset, f"{_NAME}.{number}")
    return _read(dataset, _NAME) if page is None and not number else page


def _read(dataset: Any, name: str) -> NDArray[Any] | None:
    if not h5a.exists(dataset, name.encode()):
        return None
    attribute = h5a.open(dataset, name.encode())
    if len(attribute.shape or ()) != 1 or attribute.shape[0] > PAGE:
        return None
    page = np.empty(attribute.shape, "<u8")
    attribute.read(page, _U64)
    return page


def _write(dataset: Any, name: str, page: NDArray[Any]) -> None:
    """Write a page, in place where there is one: an attribute made anew would leave its old space behind."""
    raw = name.encode()
    if h5a.exists(dataset, raw):
        attribute = h5a.open(dataset, raw)
        if attribute.shape == page.shape:
            attribute.write(page, _U64)
            return
        h5a.delete(dataset, raw)
    _create(dataset, name, page)


def _create(dataset: Any, name: str, page: NDArray[Any]) -> None:
    h5a.create(dataset, name.encode(), _U64, h5s.create_simple(page.shape)).write(page, _U64)


def layout_of(dataset: Any) -> tuple[int, tuple[int, ...] | None]:
    """Give the storage layout of a dataset, and the shape of its chunks where it has any."""
    plist = dataset.get_create_plist()
    kind = plist.get_layout()
    return kind, tuple(plist.get_chunk()) if kind == h5d.CHUNKED else None
