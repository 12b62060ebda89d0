"""Opening HDF5 files for reading, beside a writer that may be changing them."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.engines.hdf5 import gate, marks
from datastore_lab.engines.hdf5.files import check_place, open_file, open_handle
from datastore_lab.engines.hdf5.journal import Header, entries, journal_path, read_header
from datastore_lab.engines.hdf5.pages import PagedFile
from datastore_lab.errors import EngineError, NotFound

if TYPE_CHECKING:
    import h5py

    from datastore_lab.engines.hdf5.disk import Disk

_FRESH = 0.1
"""For so long after a look a read begins as if nothing had changed; the look after it tells, in seconds."""

_TRIES = 200
_PATIENCE = 3
"""After so many tries a reader asks the writer to wait."""


class _Look(NamedTuple):
    """What a reader saw of the file's identity and of its journal."""

    file: tuple[int, int]
    journal: tuple[int, int] | None
    header: Header | None
    changed: tuple[int, int] | None


class Reader:
    """A file open for reading, which a writer elsewhere may be changing."""

    def __init__(self, path: str, disk: Disk) -> None:
        self._path, self._disk = path, disk
        self._handle = -1
        self._look: _Look | None = None
        self._noted: _Look | None = None
        self._looked = -_FRESH
        self._root: Any = None
        self.file: h5py.File
        self.paged: PagedFile
        self.revision = 0
        check_place(path, "r")
        self.read(lambda root: None)

    def read(self, action: Any) -> Any:
        """Call ``action(root)`` until the file did not change meanwhile, and give its result."""
        look = self._look
        if look is not None and time.monotonic() - self._looked < _FRESH:
            result, error = self._try(look, action)
            if self._peek() == look:  # so it was all the time since that look
                if error is not None:
                    raise error
                return result
        return self._read_again(action)

    def _read_again(self, action: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for attempt in range(_TRIES):
                if attempt == _PATIENCE:
                    stack.enter_context(gate.held(self._disk, journal_path(self._path)))
                look = self._peek()
                result, error = self._try(look, action)
                if self._peek() == look:
                    if error is not None:
                        raise error
                    return result
        raise EngineError(
            f"{self._path} changes faster than it can be read; try a smaller part", key=self._path
        )

    def _try(self, look: _Look, action: Any) -> tuple[Any, Exception | None]:
        try:
            if look != self._look:
                self._reopen(look)
            return action(self._root), None
        except Exception as error:
            return None, error

    def refresh(self) -> int:
        """Give the revision of what is on disk now."""
        self._note(self._peek())
        return self.revision

    def close(self) -> None:
        """Release the file."""
        if self._handle >= 0:
            self.file.close()
            self._disk.close(self._handle)
            self._handle = -1

    def _reopen(self, look: _Look) -> None:
        if self._handle >= 0:
            with contextlib.suppress(OSError, RuntimeError):
                self.file.close()
            self._disk.close(self._handle)
            self._handle, self._look = -1, None
        handle = open_handle(self._disk, self._path, os.O_RDONLY)
        try:
            self.paged = PagedFile.reader(self._disk, handle, [*self._undo(look), *self._unmarked(handle)])
            self.file = open_file(self.paged, self._path, "r")
            self._root = self.file["/"].id
        except BaseException:
            self._disk.close(handle)
            raise
        self._handle, self._look = handle, look
        self._note(look)

    def _undo(self, look: _Look) -> list[tuple[int, bytes]]:
        if look.header is None or not look.header.hot:
            return []
        journal = open_handle(self._disk, journal_path(self._path), os.O_RDONLY)
        try:
            return list(entries(self._disk, journal, look.header))
        finally:
            self._disk.close(journal)

    def _unmarked(self, handle: int) -> list[tuple[int, bytes]]:
        """Give the superblock as it would be had its writer ended: only then all that was added is seen."""
        mark = marks.find(self._disk, handle)
        return [] if mark is None else [(mark.at, mark.cleared(self._disk.size(handle)))]

    def _peek(self) -> _Look:
        self._looked = time.monotonic()
        try:
            found = os.stat(self._path)  # noqa: PTH116 (each look takes two of these)
        except OSError as error:
            raise NotFound(f"there is no file {self._path} any more", key=self._path) from error
        identity = (found.st_dev, found.st_ino)
        try:
            journal = self._disk.open(journal_path(self._path), os.O_RDONLY)
        except FileNotFoundError:
            return _Look(identity, None, None, (found.st_mtime_ns, found.st_size))
        except OSError as error:
            raise EngineError(
                f"the journal of {self._path} can't be read: {error}", key=self._path
            ) from error
        try:
            named = os.fstat(journal)
            return _Look(identity, (named.st_dev, named.st_ino), read_header(self._disk, journal), None)
        finally:
            self._disk.close(journal)

    def _note(self, look: _Look) -> None:
        """Let the revision grow with what was seen, also where a clock was set back."""
        if look == self._noted:
            return
        self._noted = look
        found = look.header.sequence if look.header is not None else (look.changed or (0,))[0]
        self.revision = found if found > self.revision else self.revision + 1
