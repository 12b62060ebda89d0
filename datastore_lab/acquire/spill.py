"""A file for what a consumer has not read yet: frames with checksums, one after the other.

A file begins with the text ``LABSPILL``, the version, and the description of the stream as JSON. Each frame
has a head (a magic text, the sequence number of its first sample, the number of samples, bytes, the sum of
these bytes, and one of the head itself) and then the samples, column after column. Nothing is ever written
over a frame that is still to be read: after a crash everything before the torn end can be read.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from datastore_lab.acquire import columns
from datastore_lab.acquire.backlog import part_of
from datastore_lab.acquire.described import spec_from_json, spec_to_json
from datastore_lab.errors import Corrupt, EngineError, Foreign, Newer
from datastore_lab.records import Block, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.acquire.backlog import Parts, Span
    from datastore_lab.acquire.core import Core

_MAGIC, _VERSION = b"LABSPILL", 1
_FILE_HEAD = struct.Struct("<8sIIQ")  # magic, version, bytes of the description, their checksum
_FRAME = struct.Struct("<8sqqQQ")  # magic, first, samples, bytes, their checksum
_FRAME_MAGIC = b"LABFRAME"
_SUM = struct.Struct("<Q")
_HEAD = _FRAME.size + _SUM.size
_LONGEST_DESCRIPTION = 16_000_000
_FRAME_BYTES = 64_000_000


class _Frame(NamedTuple):
    offset: int
    first: int
    samples: int
    skip: int  # samples at its beginning that were read already


class SpillFile:
    """A backlog on disk.

    Parameters
    ----------
    core : Core
    limit : int
        Bytes that the file may have.
    folder : path, optional
        The temporary folder by default.

    Raises
    ------
    ValueError
        For text of any length, which has no place in a frame.
    """

    def __init__(self, core: Core, limit: int, folder: str | os.PathLike[str] | None) -> None:
        layout = core.columns.layout
        if (name := columns.is_plain(layout)) is not None:
            raise ValueError(
                f"{name!r} is text of any length, which can't spill to disk: use the policy 'grow'"
            )
        self.samples, self.most = 0, max(1, _FRAME_BYTES // core.columns.sample_nbytes)
        self._core, self._limit = core, limit
        self._handle, self.path = _create(folder)
        self._guard = threading.Lock()
        self._users, self._closed = 0, False
        self._frames: deque[_Frame] = deque()
        self._last: tuple[int, Block] | None = None  # the frame that was read last, by where it lies
        self._reading = False
        self._begin = self._end = 0
        try:
            self._begin = self._end = self._write([_file_head(core.spec)])
        except EngineError:
            self.close()
            raise

    def put(self, span: Span, parts: Parts) -> int:
        """Append a frame; gives where it ends.

        Raises
        ------
        EngineError
            If the disk is full, or the limit is reached; the file is then as it was.
        """
        buffers = [
            np.ascontiguousarray(part[name]).reshape(-1).view(np.uint8) for name in parts[0] for part in parts
        ]
        nbytes = sum(buffer.nbytes for buffer in buffers)
        waiting = self._end - self._begin if self.samples or self._reading else 0
        if self._begin + waiting + _HEAD + nbytes > self._limit:
            raise self._full(span, f"it may have {self._limit} bytes")
        try:
            self._start_over()
            return self._write([_frame_head(span, nbytes, _sum(buffers)), *buffers])
        except EngineError as error:
            raise self._full(span, str(error)) from error

    def keep(self, span: Span, token: int) -> list[Span]:
        """Count a frame as there."""
        self._frames.append(_Frame(self._end, *span, 0))
        self._end = token
        self.samples += span[1]
        return []

    def pop(self, most: int | None) -> tuple[Span, Callable[[], Block]]:
        """Take out samples of the oldest frame."""
        frame = self._frames.popleft()
        count = frame.samples - frame.skip
        if most is not None and most < count:
            count = most
            self._frames.appendleft(frame._replace(skip=frame.skip + most))
        self.samples -= count
        self._reading = True
        return (frame.first + frame.skip, count), lambda: self._load(frame, count)

    def close(self) -> None:
        """Remove the file; whoever writes or reads it just now comes to the end of that."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            if not self._users:
                os.close(self._handle)
        self.path.unlink(missing_ok=True)

    @contextmanager
    def _open(self, what: str) -> Iterator[int]:
        """Give the file's handle, which stays its own meanwhile: closed numbers go to other files.

        Raises
        ------
        EngineError
            For what the disk refuses, and if the file was closed.
        """
        with self._guard:
            if self._closed:
                raise EngineError(f"{str(self.path)!r} is closed", key=str(self.path))
            self._users += 1
        try:
            yield self._handle
        except OSError as error:
            raise EngineError(
                f"{str(self.path)!r} can't be {what}: {error.strerror}", key=str(self.path)
            ) from error
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._guard:
            self._users -= 1
            if self._closed and not self._users:
                os.close(self._handle)

    def _load(self, frame: _Frame, count: int) -> Block:
        try:
            if self._last is None or self._last[0] != frame.offset:
                self._last = frame.offset, self._read(frame)
            block = self._last[1]
            if frame.skip + count == frame.samples:
                self._last = None
            return part_of(block, frame.skip, frame.skip + count)
        finally:
            self._reading = False

    def _read(self, frame: _Frame) -> Block:
        with self._open("read") as handle:
            raw = _read_frame(handle, frame.offset, self._core.columns.sample_nbytes)
        if raw is None or raw[0] != (frame.first, frame.samples):
            raise Corrupt(
                f"the samples {frame.first} to {frame.first + frame.samples - 1} in {str(self.path)!r} are "
                "not as they were written (checksum): they are lost; check the disk",
                key=str(self.path),
            )
        return _block(self._core.spec, self._core.columns.layout, *raw)

    def _start_over(self) -> None:
        """Give the space back once everything was read."""
        with self._core.lock:
            done = not self._frames and not self._reading and self._end > self._begin
            if done:
                self._end, self._last = self._begin, None
        if done:
            with self._open("cut") as handle:
                os.ftruncate(handle, self._begin)

    def _write(self, buffers: Sequence[Any]) -> int:
        with self._open("written") as handle:
            try:
                return _write_all(handle, buffers, self._end)
            except OSError:
                with suppress(OSError):  # what is left of a frame is not read, and written over by the next
                    os.ftruncate(handle, self._end)
                raise

    def _full(self, span: Span, why: str) -> EngineError:
        first, count = span
        return EngineError(
            f"the samples {first} to {first + count - 1} could not be kept in {str(self.path)!r}, and are "
            f"lost: {why}; make space there, or choose another folder",
            key=str(self.path),
        )


class Spilled:
    """The samples that a spill file holds, such as one that a crash left.

    Iterating gives blocks, oldest first, up to the torn end if there is one. The newest of them may have been
    read by the consumer already, and are in its file too: sequence numbers tell.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    spec : Stat
        What the device described.
    torn : int or None
        Bytes at the end that are no whole frame; None before the end was reached.

    Raises
    ------
    Foreign
        For another kind of file; `Newer` for one of a later version.
    Corrupt
        If its beginning is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.torn: int | None = None
        with self.path.open("rb") as file:
            self.spec, self._begin = _read_file_head(file.fileno(), str(path))

    def __iter__(self) -> Iterator[Block]:
        layout = columns.layout_of(self.spec)
        nbytes = columns.sample_nbytes(layout)
        with self.path.open("rb") as file:
            at, size = self._begin, os.fstat(file.fileno()).st_size
            while (raw := _read_frame(file.fileno(), at, nbytes)) is not None:
                yield _block(self.spec, layout, *raw)
                at += _HEAD + len(raw[1])
            self.torn = size - at


def _create(folder: str | os.PathLike[str] | None) -> tuple[int, Path]:
    place = Path(tempfile.gettempdir() if folder is None else folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(".spill", "lab-", place)
    except OSError as error:
        raise EngineError(
            f"no file can be made in {str(place)!r}: {error.strerror}", key=str(place)
        ) from error
    return handle, Path(path)


def _write_all(handle: int, buffers: Sequence[Any], at: int) -> int:
    for buffer in buffers:
        view = memoryview(buffer).cast("B") if len(buffer) else memoryview(b"")
        while view:
            written = os.pwrite(handle, view, at)
            view, at = view[written:], at + written
    return at


def _sum(buffers: Sequence[Any]) -> int:
    state = xxhash.xxh3_64()
    for buffer in buffers:
        if len(buffer):
            state.update(buffer)
    return state.intdigest()


def _file_head(spec: Stat) -> bytes:
    described = spec_to_json(spec)
    return _FILE_HEAD.pack(_MAGIC, _VERSION, len(described), _sum([described])) + described


def _read_file_head(handle: int, path: str) -> tuple[Stat, int]:
    raw = os.pread(handle, _FILE_HEAD.size, 0)
    if len(raw) < _FILE_HEAD.size or not raw.startswith(_MAGIC):
        raise Foreign(f"{path!r} is no spill file", key=path)
    _magic, version, length, expected = _FILE_HEAD.unpack(raw)
    if version > _VERSION:
        raise Newer(f"{path!r} is a spill file of a later version of this package: update it", key=path)
    described = os.pread(handle, min(length, _LONGEST_DESCRIPTION), _FILE_HEAD.size)
    if len(described) != length or _sum([described]) != expected:
        raise Corrupt(f"the description at the beginning of {path!r} is damaged (checksum)", key=path)
    return spec_from_json(described), _FILE_HEAD.size + length


def _frame_head(span: Span, nbytes: int, payload: int) -> bytes:
    head = _FRAME.pack(_FRAME_MAGIC, *span, nbytes, payload)
    return head + _SUM.pack(_sum([head]))


def _read_frame(handle: int, at: int, sample_nbytes: int) -> tuple[Span, bytearray] | None:
    """Read a frame; None if there is no whole one."""
    raw = os.pread(handle, _HEAD, at)
    if len(raw) < _HEAD or _sum([raw[: _FRAME.size]]) != _SUM.unpack_from(raw, _FRAME.size)[0]:
        return None
    magic, first, count, nbytes, expected = _FRAME.unpack_from(raw)
    if (
        magic != _FRAME_MAGIC
        or nbytes != count * sample_nbytes
        or at + _HEAD + nbytes > os.fstat(handle).st_size
    ):
        return None
    payload = bytearray(nbytes)
    if os.preadv(handle, [payload], at + _HEAD) != nbytes or _sum([payload]) != expected:
        return None
    return (first, count), payload


def _block(spec: Stat, layout: columns.Layout, span: Span, payload: bytearray) -> Block:
    first, count = span
    rows: dict[str, NDArray[Any]] = {}
    at = 0
    for name, (dtype, shape) in layout.items():
        rows[name] = np.frombuffer(payload, dtype, count * int(np.prod(shape)), at).reshape(count, *shape)
        at += rows[name].nbytes
    data: Mapping[str, NDArray[Any]] = {name: rows[name] for name in spec.arrays}
    return Block(first, rows[columns.TIME], data, rows.get(columns.DEVICE_TIME))
