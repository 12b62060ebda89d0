"""A ring in a mapped file: how it is laid out, made, and taken apart by other processes.

The file begins with what never changes: magic, version, sizes, process and start time of the producer, the
description of the stream as JSON, and a checksum of all that. Then come words of 64 bits that the producer
keeps up to date (the positions of the newest and of the oldest whole sample, whether it has ended), a table
of the latest jumps of the sequence numbers, and the columns.

It is a plain file and not `multiprocessing.shared_memory`, whose tracker removes the memory as soon as one of
the processes that use it ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import xxhash

from datastore_lab.acquire import columns
from datastore_lab.acquire.described import spec_from_json, spec_to_json
from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, Foreign, LabError, Locked, Newer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Stat

_MAGIC, _VERSION = b"LABRING\0", 1
_FIXED = struct.Struct(
    "<8sIIQQqd"
)  # magic, version, bytes of the description, file, samples, process, its start
_SUM = struct.Struct("<Q")
_PAGE = 4096
_PIECE = 1 << 20
_WORDS = 8
_HEAD, _TAIL, _CLOSED, _EXPECTED, _JUMPS = range(5)
JUMPS = 4096
"""Jumps of the sequence numbers that the file remembers."""


class Owner(NamedTuple):
    """The process that fills a ring."""

    pid: int
    started: float

    @property
    def alive(self) -> bool:
        """Whether it still runs; another process that got its number does not count."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


class Header:
    """The words of a ring in a file that change."""

    def __init__(self, words: NDArray[Any], jumps: NDArray[Any], owner: Owner) -> None:
        self._words, self._jumps, self.owner = words, jumps, owner

    def set_tail(self, tail: int) -> None:
        """Say that everything before a position is about to be overwritten."""
        self._words[_TAIL] = tail

    def set_head(self, head: int, expected: int) -> None:
        """Say that everything before a position is there."""
        self._words[_EXPECTED] = expected
        self._words[_HEAD] = head

    def add_segment(self, position: int, first: int) -> None:
        """Say that samples from a position on are numbered from `first`."""
        count = int(self._words[_JUMPS])
        self._jumps[count % JUMPS] = position, first
        self._words[_JUMPS] = count + 1

    def close(self) -> None:
        """Say that nothing more will come."""
        self._words[_CLOSED] = 1

    def read(self) -> tuple[int, int, bool]:
        """Give head and tail, and whether the producer has ended."""
        closed, tail = bool(self._words[_CLOSED]), int(self._words[_TAIL])
        return int(self._words[_HEAD]), tail, closed  # last: what is newest must not be older than the rest

    @property
    def expected(self) -> int:
        """Samples that the device numbered so far."""
        return int(self._words[_EXPECTED])

    def jumps_from(self, known: int) -> tuple[int, list[tuple[int, int]]]:
        """Give how many jumps there were, and those after the first `known` that are still there."""
        count = int(self._words[_JUMPS])
        begin = max(known, count - JUMPS)
        rows = [tuple(self._jumps[number % JUMPS].tolist()) for number in range(begin, count)]
        # what was written over while we read is left out
        gone = max(0, int(self._words[_JUMPS]) - JUMPS + 1 - begin)
        return count, [(position, first) for position, first in rows[gone:]]


class _Plan(NamedTuple):
    """Where everything lies in a file."""

    words: int
    jumps: int
    columns: dict[str, int]
    size: int


def _plan(described: int, layout: columns.Layout, samples: int) -> _Plan:
    words = _align(_FIXED.size + described + _SUM.size)
    jumps = words + _PAGE
    at = jumps + JUMPS * 16
    places = {}
    for name, (dtype, shape) in layout.items():
        places[name] = at
        at = _align(at + samples * dtype.itemsize * int(np.prod(shape)))
    return _Plan(words, jumps, places, at)


def _align(offset: int) -> int:
    return -(-offset // _PAGE) * _PAGE


def create(
    path: str | os.PathLike[str], spec: Stat, layout: columns.Layout, samples: int
) -> tuple[Header, columns.Columns]:
    """Make the file of a ring, in the place of one whose process has ended.

    Raises
    ------
    AlreadyExists, Locked, EngineError, ValueError
        As `RingBuffer` says.
    """
    if (name := columns.is_plain(layout)) is not None:
        raise ValueError(f"{name!r} is text of any length, which has no place in a file that others map")
    place = Path(path)
    _check_free(place)
    described = spec_to_json(spec)
    plan = _plan(len(described), layout, samples)
    own = _own()
    fixed = _FIXED.pack(_MAGIC, _VERSION, len(described), plan.size, samples, *own) + described
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb+") as file:
            _reserve(file, plan.size)
            os.pwrite(file.fileno(), fixed + _SUM.pack(xxhash.xxh3_64_intdigest(fixed)), 0)
            memory = mmap.mmap(file.fileno(), plan.size)
        temporary.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise EngineError(
            f"the ring {str(path)!r} of {plan.size / 1e6:.1f} MB can't be made: {error.strerror}",
            key=str(path),
        ) from error
    return _mapped(memory, plan, layout, samples, own)


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the space now: a file with holes would end the process with a signal once the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for at in range(0, size, _PIECE):
        file.write(bytes(min(_PIECE, size - at)))
    file.flush()


def attach(path: str | os.PathLike[str]) -> tuple[Stat, Header, columns.Columns, int]:
    """Map the ring of another process for reading; the last is a handle of its file.

    Raises
    ------
    Foreign, Newer
        For another kind of file, or a ring of another version of this package.
    Corrupt
        If the file is damaged, cut short, or has another size than it should.
    EngineError
        If it can't be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise EngineError(
            f"the ring {str(path)!r} can't be opened: {error.strerror}", key=str(path)
        ) from error
    try:
        spec, samples, owner, described = _read_fixed(handle, str(path))
        layout = columns.layout_of(spec)
        plan = _plan(described, layout, samples)
        check_size(handle, plan.size, str(path))
        memory = mmap.mmap(handle, plan.size, access=mmap.ACCESS_READ)
    except BaseException:
        os.close(handle)
        raise
    header, memory_of = _mapped(memory, plan, layout, samples, owner)
    return spec, header, memory_of, handle


def check_size(handle: int, size: int, path: str) -> None:
    """Refuse a file that does not have its size: to look beyond its end would end the process.

    Raises
    ------
    Corrupt
    """
    found = os.fstat(handle).st_size
    if found != size:
        raise Corrupt(
            f"the ring {path!r} has {found} bytes and should have {size}: it was cut or changed", key=path
        )


def _read_fixed(handle: int, path: str) -> tuple[Stat, int, Owner, int]:
    raw = os.pread(handle, _FIXED.size, 0)
    if not raw.startswith(_MAGIC):
        raise Foreign(f"{path!r} is no ring of this package", key=path)
    if len(raw) < _FIXED.size:
        raise Corrupt(f"the ring {path!r} is cut short", key=path)
    _magic, version, described, size, samples, *owner = _FIXED.unpack(raw)
    if version != _VERSION:
        kind, way = (Newer, "update this one") if version > _VERSION else (Foreign, "update that one")
        raise kind(f"the ring {path!r} was made by another version of this package: {way}", key=path)
    check_size(handle, size, path)
    text = os.pread(handle, min(described, size), _FIXED.size)
    found = os.pread(handle, _SUM.size, _FIXED.size + described)
    if len(found) < _SUM.size or _SUM.unpack(found)[0] != xxhash.xxh3_64_intdigest(raw + text):
        raise Corrupt(f"the head of the ring {path!r} is damaged (checksum)", key=path)
    return spec_from_json(text), samples, Owner(*owner), described


def _mapped(
    memory: mmap.mmap, plan: _Plan, layout: columns.Layout, samples: int, owner: Owner
) -> tuple[Header, columns.Columns]:
    words = np.frombuffer(memory, np.int64, _WORDS, plan.words)
    jumps = np.frombuffer(memory, np.int64, 2 * JUMPS, plan.jumps).reshape(JUMPS, 2)
    arrays = {}
    for name, (dtype, shape) in layout.items():
        count = samples * int(np.prod(shape))
        arrays[name] = np.frombuffer(memory, dtype, count, plan.columns[name]).reshape(samples, *shape)
    return Header(words, jumps, owner), columns.Columns(layout, samples, arrays)


def _check_free(place: Path) -> None:
    if not os.path.lexists(place):
        return
    try:
        handle = os.open(place, os.O_RDONLY)
        try:
            owner = _read_fixed(handle, str(place))[2]
        finally:
            os.close(handle)
    except (OSError, LabError) as error:
        raise AlreadyExists(
            f"there is something at {str(place)!r} that is no ring: {error}; choose another path",
            key=str(place),
        ) from error
    if owner.alive and not _is_closed(place):
        raise Locked(
            f"process {owner.pid} fills the ring {str(place)!r}; choose another path", key=str(place)
        )


def _is_closed(place: Path) -> bool:
    _spec, header, _columns, handle = attach(place)
    os.close(handle)
    return header.read()[2]


def _own() -> Owner:
    import psutil

    return Owner(os.getpid(), psutil.Process().create_time())
