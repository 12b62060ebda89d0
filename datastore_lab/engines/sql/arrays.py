"""Arrays of a record: what is declared about each, and how numpy's types become blocks of bytes.

Every type is kept as its own bytes under its canonical name. Text of variable length is two blocks: one of
UTF-8, and one with the start and length of each item in it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes
from datastore_lab.engines.sql.parts import PART, Block, Reader, as_bytes, from_bytes
from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.records import ArrayInfo, Selection, default_dims, normalise_selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPAN = np.dtype([("start", "<i8"), ("size", "<i8")])
"""Where the UTF-8 of one item of text lies."""

_LARGEST_PART = 8 << 20
_SHORT = 100
_MOST_AXES = 63  # of what numpy has, as the bytes of an item are one more
_MOST_BYTES = (1 << 63) - 1


class Array(NamedTuple):
    """What is declared about an array.

    Attributes
    ----------
    dtype : str
        Canonical name.
    shape : tuple of int
    dims : tuple of str or None
        None for default names.
    part : int
        Largest number of bytes in a part.
    id : int
        Number of its items, or of their spans.
    text : tuple of two int, optional
        Number and length of the UTF-8 block.
    """

    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...] | None
    part: int
    id: int
    text: tuple[int, int] | None = None

    @property
    def numpy(self) -> np.dtype[Any]:
        """The type in memory."""
        return _parsed(self.dtype)

    @property
    def items(self) -> Block:
        """The block of items, or of spans."""
        size = SPAN.itemsize if self.text else self.numpy.itemsize
        return Block(self.id, (*self.shape, size), self.part)

    @property
    def utf8(self) -> Block | None:
        """The block of text."""
        return Block(self.text[0], (self.text[1], 1), self.part) if self.text else None

    @property
    def blocks(self) -> list[Block]:
        """All blocks."""
        return [self.items, *([self.utf8] if self.utf8 else [])]

    def info(self, name: str) -> ArrayInfo:
        """Describe it to the user."""
        block, ndim = self.items, len(self.shape)
        if block.nbytes <= block.part and not self.text:
            dims = self.dims or default_dims(name, ndim)
            return ArrayInfo(self.dtype, self.shape, dims, block.nbytes, None)
        chunks = (*(1,) * block.axis, block.step, *self.shape[block.axis + 1 :])[:ndim]
        text = self.text[1] if self.text else 0
        dims = self.dims or default_dims(name, ndim)
        return ArrayInfo(
            self.dtype, self.shape, dims, block.nbytes + text, chunks if block.pieces > 1 else None
        )

    def to_json(self, name: str) -> dict[str, Any]:
        """Give the declaration as it is kept in the record's JSON."""
        kept = {
            "name": name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "part": self.part,
            "id": self.id,
        }
        if self.dims is not None:
            kept["dims"] = list(self.dims)
        return {**kept, "text": list(self.text)} if self.text else kept

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Array:
        """Undo `to_json`, trusting nothing of it."""
        dims, text, shape = kept.get("dims"), kept.get("text"), tuple(map(_count, kept["shape"]))
        made = cls(
            kept["dtype"],
            shape,
            None if dims is None else tuple(map(str, dims)),
            _count(kept["part"]),
            _count(kept["id"]),
            None if text is None else (_count(text[0]), _count(text[1])),
        )
        wrong = len(shape) > _MOST_AXES or (dims is not None and len(dims) != len(shape))
        if wrong or not 0 < made.part <= _LARGEST_PART or (made.dtype == dtypes.STRING) != (text is not None):
            raise ValueError(kept)
        size = made.numpy.itemsize
        if not 0 < math.prod(shape) * size <= _MOST_BYTES:  # numpy minds even where there are no items
            wrong = math.prod(n or 1 for n in (*shape, size)) > _MOST_BYTES
        if wrong:
            raise ValueError(kept)
        return made


def _parsed(text: str) -> np.dtype[Any]:
    return _known(text) if len(text) < _SHORT else dtypes.parse(text)


_known = functools.lru_cache(256)(dtypes.parse)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(value)
    return value


def storable(array: NDArray[Any]) -> NDArray[Any]:
    """Refuse what can't be kept, before anything is written."""
    if isinstance(array, np.ma.MaskedArray):
        raise NotStorable("masked arrays can't be stored; store the data and the mask as two arrays")
    own = np.asarray(array)
    dtypes.check(own.dtype)
    return own


def encode_text(array: NDArray[Any], start: int = 0) -> tuple[NDArray[Any], bytes]:
    """Turn text into spans and UTF-8 that begins at byte `start` of its block."""
    texts = [text.encode("utf-8", "surrogatepass") for text in array.reshape(-1).tolist()]
    spans = np.empty(len(texts), SPAN)
    spans["size"] = sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    spans["start"] = start + np.cumsum(sizes) - sizes
    return spans.reshape(array.shape), b"".join(texts)


def cut(
    array: NDArray[Any], ids: Iterator[int], dims: tuple[str, ...] | None
) -> tuple[Array, list[tuple[Block, NDArray[np.uint8]]]]:
    """Declare an array, and give the bytes of its blocks."""
    name = dtypes.name(array.dtype)
    if name != dtypes.STRING:
        made = Array(name, array.shape, dims, PART, next(ids))
        return made, [(made.items, as_bytes(array))]
    spans, text = encode_text(array)
    made = Array(name, array.shape, dims, PART, next(ids), (next(ids), len(text)))
    utf8 = np.frombuffer(text, np.uint8).reshape(-1, 1)
    return made, [(made.blocks[0], as_bytes(spans)), (made.blocks[1], utf8)]


def read(reader: Reader, array: Array, selection: Selection) -> NDArray[Any]:
    """Read a selection."""
    if not selection and not array.text:
        dtype = array.numpy
        size = math.prod(array.shape) * dtype.itemsize
        if 0 < size <= array.part:  # a single part, as most are
            return np.ndarray(array.shape, dtype, bytearray(reader.only(array.id, size)))
    chosen = normalise_selection(selection, array.shape)
    slices = [slice(c, c + 1) if isinstance(c, int) else c for c in chosen]
    data = reader.select(array.items, slices)
    found = from_bytes(data, SPAN) if array.text else from_bytes(data, array.numpy)
    found = found.reshape([n for n, c in zip(found.shape, chosen, strict=True) if not isinstance(c, int)])
    return _texts(reader, array, found) if array.text else found


def _texts(reader: Reader, array: Array, spans: NDArray[Any]) -> NDArray[Any]:
    """Read the texts at spans, and only the parts in which they lie."""
    block, total = array.blocks[1], array.text[1] if array.text else 0
    starts, sizes = spans["start"].reshape(-1), spans["size"].reshape(-1)
    if spans.size and (starts.min() < 0 or sizes.min() < 0 or int((starts + sizes).max()) > total):
        raise Corrupt("the place of a text")
    step = block.step
    numbers = sorted(set(_touched(starts, sizes, step)))
    held = dict(reader.fetch(block, numbers)) if numbers else {}
    texts = [_text(held, step, int(at), int(size)) for at, size in zip(starts, sizes, strict=True)]
    return np.array(texts, np.dtypes.StringDType()).reshape(spans.shape)


def _touched(starts: NDArray[Any], sizes: NDArray[Any], step: int) -> Iterator[int]:
    filled = sizes > 0
    first, last = starts[filled] // step, (starts[filled] + sizes[filled] - 1) // step
    for low, high in {*zip(first.tolist(), last.tolist(), strict=True)}:
        yield from range(low, high + 1)


def _text(held: dict[int, bytes], step: int, at: int, size: int) -> str:
    pieces = []
    while size:
        number, offset = divmod(at, step)
        piece = held[number][offset : offset + size]
        pieces.append(piece)
        at, size = at + len(piece), size - len(piece)
    try:
        return b"".join(pieces).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Corrupt("a text that is no UTF-8") from error
