"""A file for HDF5 to write to, which changes nothing of the committed state before the commit.

What lies past the committed end goes straight to the disk, since nobody looks there yet. What would
overwrite committed bytes waits in memory as pages until the commit, which keeps the old bytes in the
journal first. An error of the disk never reaches HDF5, which crashes on a full one: it is remembered, what
follows is absorbed, and the commit raises it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from datastore_lab.engines.hdf5.disk import Disk, bytes_at
from datastore_lab.engines.hdf5.heap import spoil_endless

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.journal import Journal

PAGE = 4096
"""Size of the units that are kept and restored, in bytes."""

_SPILL = 64 << 20
_BULK = 1 << 20
_RUN = 4 << 20
_EVERYWHERE = 1 << 62


class PagedFile:
    """The file-like object that h5py is given.

    Parameters
    ----------
    disk : Disk
    handle : int
        The open file.
    journal : Journal or None
        None for a reader, and for a file that nobody knows yet.
    undo : iterable of (int, bytes)
        Old pages of a hot journal, for a reader: they are seen instead of what the file holds.

    Attributes
    ----------
    error : BaseException or None
        The first failure of the disk, or interrupt, since the last commit or rollback.
    """

    def __init__(
        self, disk: Disk, handle: int, journal: Journal | None = None, undo: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        self.error: BaseException | None = None
        self._disk, self._handle, self._journal = disk, handle, journal
        self._size = self._committed = disk.size(handle) if journal is not None else 0
        self._limit = self._committed
        self._at = 0
        self._pages: dict[int, bytearray] = {}
        self._kept: set[int] = set()
        self._grown = False
        self._absorbing = False
        for offset, old in undo:
            self._limit = _EVERYWHERE
            self._overlay(memoryview(old), offset)

    @classmethod
    def reader(cls, disk: Disk, handle: int, undo: Iterable[tuple[int, bytes]] = ()) -> PagedFile:
        """Look at a file that is never written through this object."""
        paged = cls(disk, handle, None, undo)
        paged._size = disk.size(handle)
        paged._limit = _EVERYWHERE
        return paged

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as io streams do."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Say where the next read or write begins."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Read bytes; h5py recognises a file by this method."""
        buffer = bytearray(max(0, self._size - self._at) if count < 0 else count)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; past the end it is zeros, as HDF5 expects of space it has not written."""
        view = memoryview(buffer).cast("B")
        got = self._disk.read(self._handle, view, self._at)
        if got < len(view):
            view[got:] = bytes(len(view) - got)
        if self._pages:
            self._lay_over(view, self._at)
        spoil_endless(view)
        self._at += len(view)
        return len(view)

    def read_at(self, view: memoryview, at: int) -> int:
        """Fill a buffer as far as the file goes, without moving; returns how many bytes there were."""
        got = self._disk.read(self._handle, view, at)
        if self._pages:
            self._lay_over(view, at)
        return got

    @property
    def size(self) -> int:
        """Length of the file, in bytes."""
        return self._size

    def write(self, data: Any) -> int:
        """Take bytes; never raises, see `error`."""
        view = memoryview(data).cast("B")
        try:
            self._take(view, self._at)
        except BaseException as error:
            self.absorb(error)
            self._take(view, self._at)
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def fill(self, data: Any, at: int) -> None:
        """Take bytes for a place where no committed description looks; never raises, see `error`.

        What is there is not kept, as nobody misses it: if the commit does not come, it stays as it is now.
        """
        view = memoryview(data).cast("B")
        if self._absorbing:
            return
        try:
            self._disk.write(self._handle, view, at)
        except BaseException as error:
            self.absorb(error)
            return
        self._grown = True
        for number in range(at // PAGE, (at + len(view) - 1) // PAGE + 1):
            if number in self._pages:  # (they are written at the commit, and would bring back the old bytes)
                begin, end = max(at, number * PAGE), min(at + len(view), (number + 1) * PAGE)
                self._pages[number][begin - number * PAGE : end - number * PAGE] = view[begin - at : end - at]

    def reserve(self, size: int) -> None:
        """Say how many bytes will be added to the end, which makes adding them faster."""
        if not self._absorbing:
            self._disk.reserve(self._handle, self._size, size)

    def truncate(self, size: int) -> int:
        """Set the length; never raises, see `error`."""
        try:
            if size != self._size and not self._absorbing:
                self._disk.truncate(self._handle, max(size, self._committed))
        except BaseException as error:
            self.absorb(error)
        self._size = size
        for number in [number for number in self._pages if number * PAGE >= size]:
            del self._pages[number]
        return size

    def flush(self) -> None:
        """Do nothing: `commit` is what makes bytes durable."""

    def absorb(self, error: BaseException | None = None) -> None:
        """From here on keep what is written in memory, until `rollback`."""
        self.error = self.error or error
        if self._absorbing:
            return
        self._absorbing = True
        edge = self._limit // PAGE
        if edge in self._pages:
            inside = self._limit - edge * PAGE
            self._pages[edge][inside:] = self._on_disk(edge)[inside:]
        self._limit = _EVERYWHERE

    def commit(self) -> bool:
        """Make everything written so far the committed state; says whether anything had changed.

        Raises
        ------
        OSError
            What the disk refused, now or since the last commit; call `rollback` then.
        """
        if self.error is not None:
            raise self.error
        changed = self._changed()
        hot = self._journal is not None and self._journal.hot
        if not (changed or hot or self._grown or self._size != self._committed):
            self._pages.clear()
            return False
        self._overwrite(changed)
        self._disk.sync(self._handle)
        if self._journal is not None:
            self._journal.settle(self._size)
        self._begin()
        return True

    def rollback(self) -> None:
        """Go back to the committed state, on disk and in memory.

        Raises
        ------
        OSError
            If the disk refuses even that; the journal stays and the next open repairs the file.
        """
        self._pages.clear()
        if self._journal is not None:  # an interrupt may have come right after the commit point
            self._committed = self._journal.size
        if self._journal is not None and self._journal.hot:
            self._journal.restore(self._handle)
        elif self._disk.size(self._handle) > self._committed:
            self._disk.truncate(self._handle, self._committed)
        self._size = self._committed
        self._begin()

    def _begin(self) -> None:
        """Start the next transaction: what is there now is committed."""
        shorter, self._committed = self._size < self._committed, self._size
        if shorter:  # only now: a crash before the commit needs the old tail; if it stays, it does no harm
            with contextlib.suppress(OSError):
                self._disk.truncate(self._handle, self._committed)
        self._limit = self._committed
        self._pages.clear()
        self._kept.clear()
        self._grown = self._absorbing = False
        self.error = None

    def _take(self, view: memoryview, at: int) -> None:
        if self._absorbing:
            if len(view) <= _BULK:  # larger ones are payload, which nobody asks for before the rollback
                self._overlay(view, at)
            return
        inside = max(0, min(len(view), self._committed - at))
        if inside >= _BULK:
            self._write_through(view[:inside], at)
        elif inside:
            self._overlay(view[:inside], at)
            if len(self._pages) * PAGE > _SPILL:
                self._overwrite(self._changed())
        if inside < len(view):
            self._grown = True
            self._disk.write(self._handle, view[inside:], at + inside)

    def _write_through(self, view: memoryview, at: int) -> None:
        """Overwrite much committed space at once: keep the old bytes, write, and drop the pages it covers."""
        first, last = at // PAGE, (at + len(view) - 1) // PAGE
        self._overwrite({number: page for number, page in self._pages.items() if first <= number <= last})
        self._keep(range(first, last + 1))
        self._disk.write(self._handle, view, at)

    def _overlay(self, view: memoryview, at: int) -> None:
        done = 0
        while done < len(view):
            number, start = divmod(at + done, PAGE)
            count = min(PAGE - start, len(view) - done)
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bytearray(PAGE) if count == PAGE else self._on_disk(number)
            page[start : start + count] = view[done : done + count]
            done += count

    def _lay_over(self, view: memoryview, at: int) -> None:
        first, last = at // PAGE, (at + len(view) - 1) // PAGE
        wanted = range(first, last + 1)
        numbers = wanted if len(wanted) < len(self._pages) else [n for n in self._pages if n in wanted]
        for number in numbers:
            page = self._pages.get(number)
            if page is None:
                continue
            begin = max(at, number * PAGE)
            end = min(at + len(view), number * PAGE + PAGE, self._limit)
            if begin < end:
                view[begin - at : end - at] = page[begin - number * PAGE : end - number * PAGE]

    def _on_disk(self, number: int) -> bytearray:
        raw = bytes_at(self._disk, self._handle, number * PAGE, PAGE)
        return bytearray(raw.ljust(PAGE, b"\0"))

    def _inside(self, number: int) -> int:
        return min(PAGE, self._committed - number * PAGE)

    def _changed(self) -> dict[int, bytearray]:
        """Give the pages that differ from the disk; HDF5 rewrites many that do not."""
        changed = {}
        for number, page in self._pages.items():
            inside = self._inside(number)
            if page[:inside] != self._on_disk(number)[:inside]:
                changed[number] = page
        return changed

    def _overwrite(self, pages: dict[int, bytearray]) -> None:
        """Keep the old bytes of these pages, write the new ones, and hold them no longer."""
        if not pages:
            return
        self._keep(sorted(pages))
        for begin, count in _runs(sorted(pages)):
            raw = b"".join(pages[number][: self._inside(number)] for number in range(begin, begin + count))
            self._disk.write(self._handle, memoryview(raw), begin * PAGE)
        for number in list(pages):
            self._pages.pop(number, None)

    def _keep(self, numbers: Iterable[int]) -> None:
        if self._journal is None:
            return
        new = [number for number in numbers if number not in self._kept]
        if new:
            self._journal.keep(self._committed, self._old(new))
            self._kept.update(new)

    def _old(self, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
        for begin, count in _runs(numbers):
            length = min(count * PAGE, self._committed - begin * PAGE)
            yield begin * PAGE, bytes_at(self._disk, self._handle, begin * PAGE, length)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Group ascending page numbers into (first, count) of at most 4 MB."""
    begin, count = numbers[0], 0
    for number in numbers:
        if number != begin + count or count * PAGE >= _RUN:
            yield begin, count
            begin, count = number, 0
        count += 1
    yield begin, count
