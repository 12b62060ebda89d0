"""Packing the chunks of arrays that grow: compression, shuffle, and the threads that do it.

What is made here is what the standard filters of HDF5 and the codecs of Zarr make, so that other programs
read it: gzip is a zlib stream (RFC 1950), zstd a frame (RFC 8878), lz4 a block with its length in front,
blosc a buffer of Blosc 1. The libraries are imported when they are first used. All of them let other threads
go on meanwhile.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from datastore_lab.errors import NotStorable
from datastore_lab.records import Packing

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
P = ParamSpec("P")

PLAIN = Packing()
"""Neither compressed nor shuffled."""

LEVELS: Mapping[str, range] = {
    "none": range(0),
    "gzip": range(1, 10),
    "szip": range(0),
    "lz4": range(1, 10),
    "zstd": range(-7, 23),
    "blosc": range(1, 10),
}
"""The levels of each compression."""

AHEAD = (os.cpu_count() or 1) + 1
"""So many chunks of an array may wait to be packed, or be packed, at a time."""

_FAST = {"gzip": 1, "lz4": 1, "zstd": 1, "blosc": 1}
_SHUFFLES = ("none", "byte", "bit")
_LEAST = 4 << 10
_AS_FILE = 16 + zlib.MAX_WBITS
_FILE_MARK = b"\x1f\x8b"
_QUICK = 3  # levels of gzip up to here are done by igzip
_ZSTD_SIZES = (0, 2, 4, 8)


def check(packing: Packing, can: tuple[str, ...], who: str, *, shards: bool = False) -> Packing:
    """Refuse what can't be done, and fill in the level if it was left open.

    Parameters
    ----------
    packing : Packing
    can : tuple of str
        The compressions that there are.
    who : str
        Who can do these, for the message.
    shards : bool, default False
        Whether several chunks can share a file.

    Raises
    ------
    NotStorable

    Examples
    --------
    >>> check(Packing("gzip"), ("none", "gzip"), "HDF5").level
    1
    >>> check(Packing("rar"), ("none", "gzip"), "HDF5")
    Traceback (most recent call last):
    datastore_lab.errors.NotStorable: HDF5 has no compression 'rar'; it has none, gzip
    """
    name, level, shuffle, chunk, shard = packing
    if name not in can or name not in LEVELS:
        raise NotStorable(f"{who} has no compression {name!r}; it has {', '.join(can)}", key=who)
    if level is not None and (not _is_count(level) or level not in LEVELS[name]):
        raise NotStorable(f"{name} has no level {level!r}; {_levels(name)}", key=who)
    if shuffle is not None and shuffle not in _SHUFFLES:
        raise NotStorable(f"there is no shuffle {shuffle!r}; there are {', '.join(_SHUFFLES)}", key=who)
    if shuffle == "bit" and name != "blosc":
        raise NotStorable(f"the bits of items are shuffled by blosc only, not with {name}", key=who)
    if shuffle == "byte" and name in {"none", "szip"}:
        raise NotStorable(f"shuffling bytes gains nothing with {name}; choose another compression", key=who)
    _check_sizes({"chunk": chunk, "shard": shard}, who)
    if shard is not None and not shards:
        raise NotStorable(f"{who} has no shards: all chunks lie in one file; leave shard out", key=who)
    return packing._replace(level=level or _FAST.get(name))


def _check_sizes(sizes: Mapping[str, int | None], who: str) -> None:
    for what, size in sizes.items():
        if size is not None and (not _is_count(size) or size < _LEAST):
            raise NotStorable(f"a {what} of {size!r} bytes is too small: {_LEAST} at least", key=who)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _levels(name: str) -> str:
    known = LEVELS[name]
    return f"its levels are {known[0]} to {known[-1]}" if known else "leave the level out"


def byte_shuffle(packing: Packing, itemsize: int) -> bool:
    """Say whether bytes are to be shuffled by themselves, before the compression; blosc does its own."""
    if packing.compression in {"none", "blosc", "szip"}:
        return False
    return itemsize > 1 and packing.shuffle != "none"


def pack(data: NDArray[Any], packing: Packing, *, as_file: bool = False) -> Any:
    """Shuffle and compress one whole chunk.

    Parameters
    ----------
    data : ndarray, C order
    packing : Packing
        As `check` gave it.
    as_file : bool, default False
        Whether gzip is to be a file (RFC 1952) rather than a zlib stream.

    Returns
    -------
    buffer
        That of `data` itself where nothing is compressed.
    """
    raw = as_bytes(data)
    if packing.compression == "blosc":
        return _blosc(raw, packing, data.dtype.itemsize)
    if byte_shuffle(packing, data.dtype.itemsize):
        raw = shuffled(raw, data.dtype.itemsize)
    if as_file and packing.compression == "gzip":
        return _deflated(raw, packing.level or 1, _AS_FILE)
    return compress(raw, packing)


def unpack(buffer: Any, packing: Packing, out: NDArray[Any]) -> None:
    """Undo `pack` into an array, which says how much there has to be.

    Raises
    ------
    ValueError
        If it can't be undone, or is of another size; no more memory than that of `out` is taken for it.
    """
    target = as_bytes(out)
    raw = decompress(buffer, packing.compression, target.nbytes)
    if byte_shuffle(packing, out.dtype.itemsize):
        unshuffle(raw, out.dtype.itemsize, target)
    else:
        target[:] = np.frombuffer(raw, np.uint8)


def as_bytes(data: NDArray[Any]) -> NDArray[np.uint8]:
    """View a contiguous array as its bytes."""
    return data.reshape(-1).view(np.uint8)


def shuffled(raw: NDArray[np.uint8], itemsize: int) -> NDArray[np.uint8]:
    """Put the first bytes of all items first, then their second ones, and so on.

    Examples
    --------
    >>> shuffled(np.array([1, 2, 3, 4, 5, 6], "u1"), 2).tolist()
    [1, 3, 5, 2, 4, 6]
    """
    return np.ascontiguousarray(raw.reshape(-1, itemsize).T).reshape(-1)


def unshuffle(raw: Any, itemsize: int, out: NDArray[np.uint8]) -> None:
    """Undo `shuffled`."""
    out.reshape(-1, itemsize)[:] = np.frombuffer(raw, np.uint8).reshape(itemsize, -1).T


def compress(raw: Any, packing: Packing) -> Any:
    """Compress bytes."""
    name, level = packing.compression, packing.level or 1
    if name == "gzip":
        return _deflated(raw, level, zlib.MAX_WBITS)
    if name == "zstd":
        return _codec("zstd").compress(raw, level)
    if name == "lz4":
        return _codec("lz4").compress(raw, level)
    return raw


def _deflated(raw: Any, level: int, form: int) -> bytes:
    if level <= _QUICK and (igzip := _igzip()) is not zlib:
        return bytes(igzip.compress(raw, level, form))
    stream = zlib.compressobj(level, wbits=form)
    return stream.compress(raw) + stream.flush()


def decompress(buffer: Any, name: str, size: int) -> Any:
    """Decompress to exactly so many bytes.

    Raises
    ------
    ValueError
        If it is not what it should be, or says that it is more or less.
    """
    if name == "none":
        raw = memoryview(buffer)
    elif name == "gzip":
        raw = memoryview(_inflated(buffer, size))
    else:
        raw = memoryview(_expanded(buffer, name, size))
    if raw.nbytes != size:
        raise ValueError(f"it holds {raw.nbytes} bytes, not {size}")
    return raw


def _inflated(buffer: Any, size: int) -> bytes:
    module = _igzip()
    stream = module.decompressobj(_AS_FILE if bytes(buffer[:2]) == _FILE_MARK else zlib.MAX_WBITS)
    try:
        raw: bytes = stream.decompress(buffer, size + 1)
    except module.error as error:
        raise ValueError(f"it can't be inflated ({error})") from error
    if not stream.eof:
        raise ValueError(f"it holds more than {size} bytes, or less than it should")
    return raw


def _expanded(buffer: Any, name: str, size: int) -> Any:
    view = memoryview(buffer)
    claimed = {"zstd": zstd_size, "lz4": _lz4_size, "blosc": _blosc_size}[name](view)
    if claimed != size:
        raise ValueError(f"it claims to hold {claimed} bytes, not {size}")
    out = np.empty(size, np.uint8)
    try:
        _codec(name).decompress(view, out)
    except RuntimeError as error:
        raise ValueError(f"it can't be decompressed ({error})") from error
    return out


def zstd_size(view: memoryview | bytes) -> int | None:
    """Give the size that a zstd frame claims to unpack to, None if it does not say (RFC 8878, 3.1.1.1)."""
    head = bytes(view[:32])
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("it is no zstd frame")
    single, width = head[4] >> 5 & 1, _ZSTD_SIZES[head[4] >> 6]
    width = width or single
    start = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    if not width:
        return None
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _lz4_size(view: memoryview) -> int:
    return int.from_bytes(view[:4], "little")


def _blosc_size(view: memoryview) -> int:
    """Give the size that a buffer of Blosc claims, which has to be there to its end."""
    if len(view) < 16 or int.from_bytes(view[12:16], "little") > len(view):
        raise ValueError("it is no buffer of Blosc, or not all of it")
    return int.from_bytes(view[4:8], "little")


def _blosc(raw: NDArray[np.uint8], packing: Packing, itemsize: int) -> Any:
    how = packing.shuffle or ("byte" if itemsize > 1 else "none")
    kind = _SHUFFLES.index(how)
    return _codec("blosc").compress(raw, b"lz4", packing.level, kind, 0, min(itemsize, 255))


@functools.cache
def _igzip() -> Any:
    """Give igzip, which is five times as fast, or Python's own zlib where there is none for this machine."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


@functools.cache
def _codec(name: str) -> Any:
    from importlib import import_module

    return import_module(f"numcodecs.{name}")


_POOL: list[ThreadPoolExecutor] = []


def begin(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Begin some work in a thread, of which there is one per core, or do it now if no thread starts any more.

    Examples
    --------
    >>> begin(divmod, 7, 2).result()
    (3, 1)
    """
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(os.cpu_count() or 1, "packing"))
    try:
        return _POOL[-1].submit(work, *args, **kwargs)
    except RuntimeError:  # the interpreter is ending, and what waits in a stream is still to be written
        return now(work, *args, **kwargs)


def now(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Do some work in this thread.

    Examples
    --------
    >>> now(divmod, 7, 2).result()
    (3, 1)
    """
    future: Future[T] = Future()
    try:
        future.set_result(work(*args, **kwargs))
    except Exception as error:
        future.set_exception(error)
    return future


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.clear)  # a child has none of the threads
