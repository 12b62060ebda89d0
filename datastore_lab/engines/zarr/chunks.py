"""Chunks of Zarr arrays: how large, how packed, written in one pass and read without zarr's event loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from datastore_lab import integrity
from datastore_lab.engines.zarr import shards
from datastore_lab.engines.zarr.crc import crc32c
from datastore_lab.engines.zarr.meta import METADATA, ArrayDoc, to_json
from datastore_lab.engines.zarr.seals import digest
from datastore_lab.engines.zarr.types import to_stored
from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.packing import zstd_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE = 16 << 20
"""Arrays of at most so many bytes are one chunk: one file to sync, and one request over a network."""

CHUNK = 8 << 20
"""Aim for the chunks of larger arrays, in bytes."""

_CHEAP = 64 << 20
_RATIO = 1 << 15  # (what zstd makes of zeros)
_SMALL = 4 << 10
_SAMPLE = 64 << 10
_GAIN = 0.9

Each: TypeAlias = Callable[..., Iterable[Any]]
Axis: TypeAlias = tuple[slice, int]  # of the array, with a positive step; and how many items that is


def choose_chunks(
    shape: tuple[int, ...], itemsize: int, target: int = CHUNK, whole: int = WHOLE
) -> tuple[int, ...]:
    """Cut an array into pieces that are contiguous in C order, of nearly equal size along the cut axis.

    Examples
    --------
    >>> choose_chunks((1000, 10), 8)
    (1000, 10)
    >>> choose_chunks((3, 1000, 1000), 8, target=1 << 20, whole=1 << 20)
    (1, 125, 1000)
    """
    if math.prod(shape) * itemsize <= whole:
        return tuple(max(length, 1) for length in shape)
    chunks: list[int] = []
    for axis, length in enumerate(shape):
        rest = math.prod(shape[axis + 1 :]) * itemsize
        if rest < target:
            pieces = math.ceil(length / max(1, min(length, target // max(rest, 1))))
            size = math.ceil(length / _even(length, pieces))
            return (*chunks, size, *(max(size, 1) for size in shape[axis + 1 :]))
        chunks.append(1)
    return tuple(chunks)


def _even(length: int, pieces: int) -> int:
    """Give a number of pieces, up to half as many more, that leaves no chunk to fill up; if there is one."""
    return next((n for n in range(pieces, pieces + pieces // 2 + 1) if not length % n), pieces)


def choose_packing(stored: NDArray[Any]) -> str:
    """Compress only what shrinks.

    zstd at level 1 packs 16-bit samples to 0.68 and camera frames to 0.53 at 0.8-0.9 GB/s and unpacks at
    1.8 GB/s; but the float noise of most instruments only shrinks to 0.96, at 0.66 and 1.1 GB/s, where plain
    bytes are written at 1.6 GB/s and read at 6. So three samples decide. Either way a checksum inside the
    chunk lets every reader notice damage: zstd's own, or crc32c (7 GB/s).
    """
    if stored.dtype.kind == "T":
        return "zstd"
    if stored.nbytes < _SMALL:
        return "crc32c"
    raw = np.ascontiguousarray(stored).reshape(-1).view(np.uint8) if stored.nbytes else np.empty(0, np.uint8)
    last = max(len(raw) - _SAMPLE, 0)
    starts = sorted({0, last // 2, last})
    sample = np.concatenate([raw[start : start + _SAMPLE] for start in starts])
    return "zstd" if len(_zstd().encode(sample)) < _GAIN * len(sample) else "crc32c"


def _zstd() -> Any:
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

    return Zstd(level=1, checksum=True)


def text_bytes(array: NDArray[Any]) -> bytes:
    """Encode text as Zarr's ``vlen-utf8`` does."""
    from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]

    try:
        return bytes(VLenUTF8().encode(array.reshape(-1).astype(object)))
    except UnicodeEncodeError as error:
        raise NotStorable("text with a lone surrogate can't be stored as text") from error


def pack(chunk: NDArray[Any], packing: str) -> list[Any]:
    """Encode one whole chunk in stored form, as buffers that make up its file."""
    raw: Any = (
        text_bytes(chunk)
        if chunk.dtype.kind == "T"
        else np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
    )
    if packing == "zstd":
        return [_zstd().encode(raw)]
    if packing == "crc32c":
        return [raw, crc32c(raw)]
    return [raw]


def sum_of(packing: str, buffers: Sequence[Any]) -> int:
    """Give the sum of a chunk file that `pack` made: its crc32c where it has one, else the XXH3 of all."""
    return int.from_bytes(buffers[-1], "little") if packing == "crc32c" else integrity.block_sum(buffers[0])


def sum_found(packing: str, raw: bytes) -> int | None:
    """Give the sum of a chunk file as it is found; None if its crc32c is not that of its content."""
    if packing != "crc32c":
        return integrity.block_sum(raw)
    view = memoryview(raw)
    return int.from_bytes(view[-4:], "little") if crc32c(view[:-4]) == view[-4:] else None


def pieces(stored: NDArray[Any], doc: ArrayDoc, first: int = 0) -> Iterator[tuple[str, NDArray[Any]]]:
    """Cut an array into whole chunks, filled up at the edge; `first` numbers the first of them on axis 0."""
    if not stored.size:
        return
    counts = [math.ceil(length / size) for length, size in zip(stored.shape, doc.chunks, strict=True)]
    for index in itertools.product(*map(range, counts)):
        where = tuple(slice(at * size, (at + 1) * size) for at, size in zip(index, doc.chunks, strict=True))
        piece = stored[where] if where else stored
        if piece.shape != doc.chunks:
            full = np.zeros(doc.chunks, doc.stored)
            full[tuple(slice(length) for length in piece.shape)] = piece
            piece = full
        yield doc.chunk_name((index[0] + first, *index[1:]) if index else index), piece


def encode(array: NDArray[Any], doc: ArrayDoc, put: Callable[..., None], each: Each = map) -> str:
    """Write an array: its chunks first, then its metadata.

    Parameters
    ----------
    array : ndarray
    doc : ArrayDoc
        How it is to be stored.
    put : callable
        Called as ``put(name, *buffers)`` for each file.
    each : callable, default map
        Calls a function of each chunk, and gives the results in order.

    Returns
    -------
    str
        Digest of the metadata.
    """
    sums = []
    cut = pieces(to_stored(array, doc), doc)
    for name, buffers in each(lambda chunk: (chunk[0], pack(chunk[1], doc.packing)), cut):
        put(name, *buffers)  # (in one thread: pages of memory that another takes are colder, and slower)
        sums.append(sum_of(doc.packing, buffers))
    document = doc.with_sums(sums).document()
    put(METADATA, to_json(document))
    return digest(document)


def read_region(
    doc: ArrayDoc, axes: list[Axis], fetch: Callable[[tuple[int, ...]], bytes], *, checked: bool
) -> NDArray[Any]:
    """Read part of an array in stored form, touching only the chunks that it needs.

    Parameters
    ----------
    doc : ArrayDoc
    axes : list of (slice, count)
        One per stored axis, with a positive step.
    fetch : callable
        Gives the content of a chunk's file by the chunk's index.
    checked : bool
        Whether `fetch` has compared it with its sum.
    """
    out = np.zeros(tuple(count for _, count in axes), doc.stored)
    if not out.size:
        return out
    parts = [list(_overlaps(cut, count, size)) for (cut, count), size in zip(axes, doc.chunks, strict=True)]
    for combination in itertools.product(*parts):
        index = tuple(at for at, _, _ in combination)
        target = out[tuple(to for _, to, _ in combination)] if combination else out
        if target.shape == doc.chunks and target.flags.c_contiguous and target.dtype.kind != "T":
            decode(fetch(index), index, doc, target, checked=checked)
        else:
            chunk = np.empty(doc.chunks, doc.stored)
            decode(fetch(index), index, doc, chunk, checked=checked)
            target[...] = chunk[tuple(take for _, _, take in combination)]
    return out


def _overlaps(cut: slice, count: int, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield, for one axis, each chunk that is touched: its number, where it goes, what of it is taken."""
    start, step, done = cut.start, cut.step, 0
    while done < count:
        position = start + done * step
        number = position // size
        several = min(count - done, (size * (number + 1) - 1 - position) // step + 1)
        inside = position - number * size
        yield number, slice(done, done + several), slice(inside, inside + (several - 1) * step + 1, step)
        done += several


def decode(
    raw: bytes, index: tuple[int, ...], doc: ArrayDoc, out: NDArray[Any], *, checked: bool = False
) -> None:
    """Decode one chunk's file into an array of the chunk's shape, contiguous.

    Raises
    ------
    Corrupt
        If it can't be decoded or its own checksum differs.
    """
    try:
        if doc.packing == "crc32c" and not checked and sum_found("crc32c", raw) is None:
            raise ValueError("its checksum differs")  # noqa: TRY301
        _decode(raw, doc, out)
    except (ValueError, RuntimeError, UnicodeError, TypeError, MemoryError) as error:
        raise Corrupt(
            f"the chunk {doc.chunk_name(index)!r} is damaged ({error}); restore it from a copy, or delete "
            "the item",
            key=index,
        ) from error


def _decode(raw: bytes, doc: ArrayDoc, out: NDArray[Any]) -> None:
    view = memoryview(raw)[:-4] if doc.packing == "crc32c" else memoryview(raw)
    if doc.shard is not None:
        shards.decode(raw, doc.shard, out)
        return
    if doc.is_text:
        _decode_text(_unpack_text(raw) if doc.packing == "zstd" else bytes(view), out)
        return
    if doc.packing == "zstd":
        if (size := zstd_size(raw)) not in {None, out.nbytes}:
            raise ValueError(f"it holds {size} bytes, not {out.nbytes}")
        _zstd().decode(raw, out=out.reshape(-1).view(np.uint8))
    else:
        if len(view) != out.nbytes:
            raise ValueError(f"it holds {len(view)} bytes, not {out.nbytes}")
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(view, np.uint8)
    if doc.endian == ">":
        out.byteswap(inplace=True)


def _unpack_text(raw: bytes) -> bytes:
    """Unpack text of variable length, of which only the frame says how much it is."""
    size = zstd_size(raw)
    if size is None or size > max(_CHEAP, _RATIO * len(raw)):
        raise ValueError(f"it claims to unpack to {size} bytes, which no text of {len(raw)} bytes does")
    return bytes(_zstd().decode(raw))


def _decode_text(raw: bytes, out: NDArray[Any]) -> None:
    from numcodecs.vlen import VLenUTF8

    if len(raw) < 4 or int.from_bytes(raw[:4], "little") != out.size:
        raise ValueError("it holds another number of texts")
    out[...] = VLenUTF8().decode(raw).reshape(out.shape)
