"""Opening HDF5 files for writing, through the journal."""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from datastore_lab import integrity
from datastore_lab.engines.hdf5 import attrs, marks, references, seals
from datastore_lab.engines.hdf5.journal import Journal
from datastore_lab.engines.hdf5.models import FORMAT, Models
from datastore_lab.engines.hdf5.pages import PagedFile
from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, Foreign, LabError, NotFound, ReadOnly
from datastore_lab.locks import same_file

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.disk import Disk

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ALIGNED = {"alignment_threshold": 64 << 10, "alignment_interval": 64}
"""Large arrays begin where a line of the processor's cache does: those that are mapped are read faster so."""

MODES = ("r", "r+", "a", "w", "x")


def real_path(path: str | os.PathLike[str]) -> str:
    """Resolve links, so that every name of a file leads to the same journal."""
    try:
        return os.path.realpath(os.fspath(path))
    except ValueError as error:
        raise EngineError(f"{path!r} is no path: {error}", key=path) from error


def check_place(path: str, mode: str) -> bool:
    """Say whether a file is there, refusing places where no HDF5 file can be or become; changes nothing.

    Raises
    ------
    NotFound, AlreadyExists, Foreign, EngineError
    """
    if mode not in MODES:
        raise EngineError(f"{mode!r} is no mode; use one of {', '.join(MODES)}", key=path)
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return _check_missing(path, mode)
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} can't be opened: {error}", key=path) from error
    if not stat_module.S_ISREG(found.st_mode):
        what = "a folder" if stat_module.S_ISDIR(found.st_mode) else "not a regular file"
        raise EngineError(f"{path} is {what}; give the path of an HDF5 file", key=path)
    if mode == "x":
        raise AlreadyExists(f"{path} exists already; open it with mode 'a', or choose another name", key=path)
    if mode != "w" or found.st_size > 0:  # not even "w" may cost somebody a file of another kind
        check_signature(path)
    return True


def _check_missing(path: str, mode: str) -> bool:
    if mode in {"r", "r+"}:
        raise NotFound(f"there is no file {path}; open it with mode 'a' to make it", key=path)
    if not Path(path).parent.is_dir():
        raise EngineError(f"the folder {Path(path).parent} does not exist; make it first", key=path)
    return False


def check_signature(path: str) -> None:
    """Refuse a file that is not HDF5."""
    try:
        with Path(path).open("rb") as file:
            at, size = 0, Path(path).stat().st_size
            while at < size:
                file.seek(at)
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return
                at = max(512, at * 2)
    except OSError as error:
        raise EngineError(f"{path} can't be read: {error.strerror}", key=path) from error
    raise Foreign(f"{path} is not an HDF5 file; nothing was changed", key=path)


def open_handle(disk: Disk, path: str, flags: int) -> int:
    """Open a file, with the errors of this package."""
    try:
        return disk.open(path, flags)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", key=path) from error
    except PermissionError as error:
        raise ReadOnly(
            f"{path} can't be written: {error.strerror}; open it with mode 'r'", key=path
        ) from error
    except OSError as error:
        kind = ReadOnly if error.errno == 30 else EngineError  # EROFS
        raise kind(f"{path} can't be opened: {error.strerror}", key=path) from error


def open_file(paged: PagedFile, path: str, mode: str) -> h5py.File:
    """Let HDF5 open a paged file.

    Raises
    ------
    Corrupt
        If HDF5 can't make sense of it.
    """
    file = None
    try:
        new = {"track_order": True, "fs_strategy": "none"} if mode == "w" else {}
        file = h5py.File(paged, mode, libver=FORMAT, **_ALIGNED, **new)
        root = file["/"].id  # may be what is damaged
        references.know(root, paged)
        layout = attrs.get(root, integrity.VERSION)
        integrity.check_layout(layout, path)
    except LabError:
        _drop(file, paged)
        raise
    except (OSError, RuntimeError, ValueError, KeyError, OverflowError) as error:
        _drop(file, paged)
        raise Corrupt(
            f"{path} is damaged ({error}); restore it from a copy, or try h5dump and h5repack on it", key=path
        ) from error
    return file


def _drop(file: h5py.File | None, paged: PagedFile) -> None:
    """Close what can't be used, without writing anything."""
    if file is not None:
        paged.absorb()
        with contextlib.suppress(OSError, RuntimeError):
            file.close()


class Writer:
    """A file open for writing: its journal, its pages and HDF5's view of it."""

    def __init__(self, path: str, mode: str, disk: Disk, timeout: float = 0.0) -> None:
        self._path, self._disk = path, disk
        self._process = os.getpid()
        self._broken: OSError | None = None
        self._root: tuple[h5py.File, Any] | None = None
        self.models = Models()
        self.file: h5py.File
        self.paged: PagedFile  # what is read from; after a failure of the disk not what is written to
        self._paged: PagedFile
        check_place(path, mode)
        self._journal = self._lock(timeout)
        self._handle = -1
        self.recovered = False
        try:
            exists = check_place(path, mode)  # again, now that nobody else can change it
            if exists:
                self._handle = open_handle(disk, path, os.O_RDWR)
                self.recovered = self._journal.recover(self._handle)
                if mode != "w":
                    marks.refuse(disk, self._handle, path)
            disk.unlink(f"{path}-new")
            if not exists or mode == "w":
                self._replace_by_empty()
            self._start()
        except BaseException:
            self._release(remove=not self._journal.hot)
            raise
        _WRITERS.add(self)

    @property
    def root(self) -> Any:
        """The root group, as a low-level h5py identifier."""
        if os.getpid() != self._process:
            raise EngineError(
                f"{self._path} was opened by the parent of this process; open it here anew, with mode 'r'",
                key=self._path,
            )
        if self._root is None or self._root[0] is not self.file:
            self._root = (self.file, self.file["/"].id)
        return self._root[1]

    @property
    def is_usable(self) -> bool:
        """Whether changes can be made: in this process, and not after an error of the disk."""
        return os.getpid() == self._process and self._handle >= 0 and self._broken is None

    @property
    def revision(self) -> int:
        """Grows at every commit."""
        return self._journal.sequence

    @property
    def failure(self) -> BaseException | None:
        """What the disk refused, or an interrupt, since the last commit."""
        return self._paged.error

    def commit(self) -> None:
        """Make all changes durable.

        Raises
        ------
        EngineError
            If the disk refuses; the file is back in its committed state then.
        """
        try:
            self.file.flush()
            self._check_there()
            self._paged.commit()
        except BaseException as error:
            cause = self._paged.error or error
            self.rollback()
            if not isinstance(cause, Exception) or isinstance(cause, LabError):
                raise cause from None
            raise self.refused(cause) from cause

    def rollback(self) -> None:
        """Go back to the committed state; if the disk refuses even that, in memory."""
        self._paged.absorb()
        with contextlib.suppress(OSError, RuntimeError):  # what HDF5 thinks of it no longer matters
            self.file.close()
        self._restore()

    def _restore(self) -> None:
        try:
            self._paged.rollback()
            self.paged = self._paged
            self.file = open_file(self.paged, self._path, "r+")
            self._broken = None
        except OSError as error:
            self._broken = error
            undo = list(self._journal.undo()) if self._journal.hot else []
            self.paged = PagedFile.reader(self._disk, self._handle, undo)
            self.file = open_file(self.paged, self._path, "r")

    def refused(self, cause: BaseException) -> EngineError:
        """Say that a change failed."""
        return EngineError(
            f"{self._path} can't be written: {cause}; nothing was changed. Make room or mend the disk, "
            "then try again",
            key=self._path,
        )

    def _check_there(self) -> None:
        if not same_file(self._handle, self._path):
            raise EngineError(
                f"{self._path} was removed or replaced under the open store, so nothing more can be kept in "
                "it; close the store and open it anew",
                key=self._path,
            )

    def check(self) -> None:
        """Refuse changes that would be lost, after a failure of the disk or the removal of the file."""
        self._check_there()
        if self._broken is not None:
            self.file.close()
            self._restore()
        if self._broken is not None:
            raise EngineError(
                f"{self._path} could not be restored after an error of the disk ({self._broken}); what was "
                "committed can still be read. Mend the disk and try again",
                key=self._path,
            ) from self._broken

    def swap(self, source: str) -> None:
        """Put another file, which is durable, in the place of this one; if that fails this one stays.

        Raises
        ------
        EngineError
        """
        self._paged.absorb()
        self.file.close()
        self._disk.close(self._handle)
        self._handle = -1
        try:
            self._disk.replace(source, self._path)
            self._disk.sync_folder(self._path)
        except OSError as error:
            raise EngineError(
                f"{self._path} can't be replaced by {source}: {error}; close what has it open and try again",
                key=self._path,
            ) from error
        finally:
            self._open_again()

    def _open_again(self) -> None:
        self._handle = open_handle(self._disk, self._path, os.O_RDWR)
        try:
            self._start()
        except BaseException:
            self._disk.close(self._handle)
            self._handle = -1
            raise

    def close(self) -> None:
        """Give up what is not committed, remove the journal and let go of the lock."""
        if os.getpid() != self._process:
            return
        self.models.close()
        self._paged.absorb()
        self.file.close()
        if self._handle >= 0:
            with contextlib.suppress(OSError):  # the journal stays then, and the next open repairs the file
                self._paged.rollback()
        self._release(remove=not self._journal.hot)

    def forget(self) -> None:
        """Close this process's copies of the handles after a fork."""
        self._journal.forget()

    def _lock(self, timeout: float) -> Journal:
        try:
            return Journal(self._path, self._disk, timeout)
        except LabError:
            raise
        except OSError as error:
            raise ReadOnly(
                f"{self._path} can't be written: no journal can be made beside it ({error.strerror}); "
                "open it with mode 'r'",
                key=self._path,
            ) from error

    def _replace_by_empty(self) -> None:
        new = f"{self._path}-new"
        write_new(self._disk, new, lambda file: seals.begin(file["/"].id))
        if self._handle >= 0:
            self._disk.make_like(new, self._path)
        self._disk.replace(new, self._path)
        self._disk.sync_folder(self._path)
        if self._handle >= 0:
            self._disk.close(self._handle)
        self._handle = open_handle(self._disk, self._path, os.O_RDWR)

    def _start(self) -> None:
        self._journal.start(self._disk.size(self._handle), Path(self._path).stat().st_mtime_ns)
        self.paged = self._paged = PagedFile(self._disk, self._handle, self._journal)
        self.file = open_file(self.paged, self._path, "r+")

    def _release(self, *, remove: bool) -> None:
        self._journal.close(remove=remove)
        if self._handle >= 0:
            self._disk.close(self._handle)
            self._handle = -1
        _WRITERS.discard(self)


def write_new(disk: Disk, path: str, fill: Any) -> None:
    """Make a durable HDF5 file that nobody knows yet, filled by ``fill(file)``."""
    handle = open_handle(disk, path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        paged = PagedFile(disk, handle)
        file = open_file(paged, path, "w")
        try:
            fill(file)
        finally:
            file.close()
        paged.commit()
    except BaseException as error:
        disk.unlink(path)
        if isinstance(error, OSError) and not isinstance(error, LabError):
            raise EngineError(f"{path} can't be written: {error}", key=path) from error
        raise
    finally:
        disk.close(handle)


_WRITERS: weakref.WeakSet[Writer] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_WRITERS):
        writer.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
