"""The rollback journal beside a file: what a page held before it was overwritten.

Beside ``run.h5`` lies ``run.h5-journal`` while a writer has the store open. It has three parts:

``0..64``
    The header: magic, version, state (idle or hot), sequence, committed size, checksum.
``64..512``
    A JSON note on who holds the store (process, host, since), for people.
``512..``
    Entries: sequence, offset, length, checksum, old bytes.

Old bytes are durable here before the file itself is touched, so a file can be brought back to its last
commit at any moment. Commit: write the entries and a *hot* header, sync; write the pages, sync the file;
write an *idle* header with the next sequence, sync. The last step is the commit point. An entry or header
that was cut short fails its checksum and counts as not written.

The writer holds an exclusive lock on the journal for as long as the store is open; it dies with its
process. The sequence in the header tells a reader in another process whether anything changed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import xxhash

from datastore_lab.engines.hdf5 import gate
from datastore_lab.engines.hdf5.disk import Disk, bytes_at
from datastore_lab.errors import EngineError, Locked
from datastore_lab.locks import describe_holder, holder_note, lock_handle, same_file

_MAGIC = b"LABJRNL\x01"
_VERSION = 1
_IDLE, _HOT = 0, 1
_HEADER = struct.Struct("<8sIIQQ")
_ENTRY = struct.Struct("<4sIQQQ")
_ENTRY_MAGIC = b"page"
_CHECK = struct.Struct("<Q")
_NOTE_AT, _ENTRIES_AT = 64, 512
_LOCK_AT = 1 << 40
_POLL = 0.02
_KEEP = 4 << 20
"""A journal is cut back to its header after a commit that made it longer than this, in bytes."""


class Header(NamedTuple):
    """What the journal says about its file.

    Attributes
    ----------
    hot : bool
        Pages may have been overwritten since the last commit.
    sequence : int
        Grows at every commit and at every rollback.
    size : int
        Length of the file at the last commit, in bytes.
    """

    hot: bool
    sequence: int
    size: int

    def pack(self) -> bytes:
        """Give the header as it lies in the file."""
        state = _HOT if self.hot else _IDLE
        body = _HEADER.pack(_MAGIC, _VERSION, state, self.sequence, self.size)
        return body + _CHECK.pack(xxhash.xxh3_64_intdigest(body))


def journal_path(path: str) -> str:
    """Give the name of the journal of a file."""
    return f"{path}-journal"


def read_header(disk: Disk, handle: int) -> Header | None:
    """Read the header; None if it was cut short or never written."""
    raw = bytes_at(disk, handle, 0, _HEADER.size + _CHECK.size)
    body, check = raw[: _HEADER.size], raw[_HEADER.size :]
    if len(check) < _CHECK.size or _CHECK.unpack(check)[0] != xxhash.xxh3_64_intdigest(body):
        return None
    magic, version, state, sequence, size = _HEADER.unpack(body)
    if magic != _MAGIC or version != _VERSION:
        return None
    return Header(state == _HOT, sequence, size)


def entries(disk: Disk, handle: int, header: Header) -> Iterator[tuple[int, bytes]]:
    """Yield offset and old bytes of every whole entry of a hot journal."""
    at, end = _ENTRIES_AT, disk.size(handle)
    while at + _ENTRY.size <= end:
        raw = bytes_at(disk, handle, at, _ENTRY.size)
        if len(raw) < _ENTRY.size:
            return
        magic, length, sequence, offset, check = _ENTRY.unpack(raw)
        if magic != _ENTRY_MAGIC or sequence != header.sequence or at + _ENTRY.size + length > end:
            return
        old = bytes_at(disk, handle, at + _ENTRY.size, length)
        if _entry_check(sequence, offset, old) != check:
            return
        yield offset, old
        at += _ENTRY.size + length


def _entry_check(sequence: int, offset: int, old: bytes) -> int:
    seed = (sequence * 0x9E3779B1 + offset) & 0xFFFFFFFFFFFFFFFF
    return xxhash.xxh3_64_intdigest(old, seed=seed)


class Journal:
    """The writer's side: holds the lock, keeps old pages, marks commits.

    Parameters
    ----------
    path : str
        The file that is written, not the journal.
    disk : Disk
    timeout : float, default 0.0
        How long to wait for another writer, in seconds.

    Attributes
    ----------
    sequence : int
        That of the committed state; grows at every commit and rollback.
    size : int
        Length of the file in its committed state, in bytes.
    hot : bool
        Whether pages may have been overwritten since.

    Raises
    ------
    Locked
        If another writer has the store open; the message names it.
    """

    def __init__(self, path: str, disk: Disk, timeout: float = 0.0) -> None:
        self.path = journal_path(path)
        self.sequence = 0
        self.hot = False
        self._disk = disk
        self._named = False
        self._end = _ENTRIES_AT
        self.size = 0
        self._handle = self._take(time.monotonic() + timeout)

    def recover(self, handle: int) -> bool:
        """Bring a file back to its last commit if its last writer did not finish; says whether it did."""
        header = read_header(self._disk, self._handle)
        if header is None or not header.hot:
            return False
        self.sequence, self.size, self.hot = header.sequence, header.size, True
        self.restore(handle)
        return True

    def start(self, size: int, newest: int) -> None:
        """Begin a session: an idle header for a file of `size` bytes, and a sequence not below `newest`."""
        self.sequence = max(self.sequence, newest, time.time_ns())
        self.settle(size)
        raw = json.dumps(holder_note()).encode().ljust(_ENTRIES_AT - _NOTE_AT, b"\0")
        self._disk.write(self._handle, memoryview(raw), _NOTE_AT)

    def keep(self, size: int, pages: Iterable[tuple[int, bytes]]) -> None:
        """Make old bytes durable; after this the file may be overwritten there.

        Parameters
        ----------
        size : int
            Length of the file at the last commit.
        pages : iterable of (int, bytes)
            Offset and old bytes.
        """
        if not self.hot:
            gate.shut(self._handle)
        try:
            self._append(pages)
            if self.hot:  # a header cut short here would disown the pages that were overwritten before
                self._disk.sync(self._handle)
            else:
                self.size, self.hot = size, True
                self._put(Header(True, self.sequence, size))
        finally:
            if not self.hot:
                gate.open_again(self._handle)
        if not self._named:
            self._disk.sync_folder(self.path)
            self._named = True

    def settle(self, size: int) -> None:
        """Declare the file, which is durable by now, to be the committed state: the commit point."""
        self._put(Header(False, self.sequence + 1, size))
        self.sequence += 1
        self.size, self.hot = size, False
        gate.open_again(self._handle)
        if self._end > _KEEP:
            self._disk.truncate(self._handle, _ENTRIES_AT)
        self._end = _ENTRIES_AT

    def restore(self, handle: int) -> None:
        """Write the old pages back, cut the file to its committed size and call that state committed."""
        header = Header(True, self.sequence, self.size)
        on_disk = read_header(self._disk, self._handle)
        if on_disk is None or not on_disk.hot:  # a commit failed in its last step: make it undone first
            self._put(header)
        for offset, old in self.undo():
            self._disk.write(handle, memoryview(old), offset)
        if self._disk.size(handle) > self.size:
            self._disk.truncate(handle, self.size)
        self._disk.sync(handle)
        self.sequence += 1  # a reader may have seen the next one
        self.settle(self.size)

    def undo(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and old bytes of what was overwritten since the last commit."""
        return entries(self._disk, self._handle, Header(True, self.sequence, self.size))

    def close(self, *, remove: bool) -> None:
        """Release the lock; remove the journal if the file is in its committed state."""
        if remove and same_file(self._handle, self.path):
            with contextlib.suppress(PermissionError):  # Windows keeps names of open files; it is idle anyway
                self._disk.unlink(self.path)
        self._disk.close(self._handle)  # which releases the lock

    def forget(self) -> None:
        """Close this process's copy of the handle after a fork; the lock stays with the parent."""
        self._disk.close(self._handle)

    def _append(self, pages: Iterable[tuple[int, bytes]]) -> None:
        for offset, old in pages:
            check = _entry_check(self.sequence, offset, old)
            raw = _ENTRY.pack(_ENTRY_MAGIC, len(old), self.sequence, offset, check) + old
            self._disk.write(self._handle, memoryview(raw), self._end)
            self._end += len(raw)

    def _put(self, header: Header) -> None:
        self._disk.write(self._handle, memoryview(header.pack()), 0)
        self._disk.sync(self._handle)

    def _take(self, deadline: float) -> int:
        while True:
            handle = self._disk.open(self.path, os.O_RDWR | os.O_CREAT)
            if not _lock(handle):
                message = _held(self._disk, handle, self.path)
                self._disk.close(handle)
                if time.monotonic() >= deadline:
                    raise Locked(message, key=self.path)
                time.sleep(_POLL)
                continue
            if same_file(handle, self.path):
                return handle
            self._disk.close(handle)  # its last holder removed it between our open and our lock


def _held(disk: Disk, handle: int, path: str) -> str:
    note = bytes_at(disk, handle, _NOTE_AT, _ENTRIES_AT - _NOTE_AT).rstrip(b"\0")
    return (
        f"{path.removesuffix('-journal')} is open for writing by {describe_holder(note)}; "
        "close it there, or open it here with mode 'r'"
    )


def _lock(handle: int) -> bool:
    if os.name == "nt":
        os.lseek(handle, _LOCK_AT, os.SEEK_SET)  # a locked byte can't be read by others: far from the entries
    try:
        return lock_handle(handle)
    except OSError as error:
        raise EngineError(
            f"the file system can't lock ({error.strerror}), so two writers could destroy the store; "
            "keep it on a local disk"
        ) from error
