"""An open HDF5 file: who may look at it or change it, and when changes are committed or undone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from datastore_lab.engines.hdf5 import describe, payload
from datastore_lab.engines.hdf5.disk import Disk
from datastore_lab.engines.hdf5.files import Writer, real_path
from datastore_lab.engines.hdf5.quick import Quick
from datastore_lab.engines.hdf5.reader import Reader
from datastore_lab.errors import Corrupt, EngineError, LabError, ReadOnly
from datastore_lab.interrupts import Uninterrupted
from datastore_lab.keys import Key, check, show
from datastore_lab.records import check_durability

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.pages import PagedFile

T = TypeVar("T")


class _Seen(NamedTuple):
    """What is remembered of one committed state of the file."""

    paged: PagedFile
    revision: int
    quick: Quick
    nodes: dict[Key, describe.Node]


class Session:
    """One HDF5 file, its lock, and the transaction at hand.

    Parameters
    ----------
    path, mode, timeout, durability, disk
        As for `datastore_lab.engines.hdf5.HDF5Engine`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
        disk: Disk | None = None,
    ) -> None:
        durable = check_durability(durability)
        self._path = real_path(path)
        self._lock = threading.RLock()
        self._disk = disk or Disk(durable=durable)
        self._depth = 0
        self._changed = False
        self._doomed: BaseException | None = None
        self._closed = False
        self._joined: list[Callable[[], None]] = []
        self._seen: _Seen | None = None
        self._writer = None if mode == "r" else Writer(self._path, mode, self._disk, timeout)
        self._reader = Reader(self._path, self._disk) if mode == "r" else None

    @property
    def url(self) -> str:
        """The path of the file."""
        return self._path

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        return self._writer is not None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside are one atomic, durable commit; an exception undoes them."""
        with self._changing(()), self._nested():
            yield

    def revision(self) -> int:
        """Give a number that grows with every commit, also across processes."""
        with self._lock:
            self._check_open()
            if self._reader is not None:
                return self._reader.refresh()
            return self._need_writer(()).revision

    def close(self) -> None:
        """Release the file and its lock; what was not committed is undone. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._tell_undone()
            for part in (self._writer, self._reader):
                if part is not None:
                    part.close()

    def _source(self) -> payload.Source:
        paged = self._paged()
        return payload.Source(self._path, paged.size, paged.read_at)

    def _paged(self) -> PagedFile:
        return (self._reader or self._need_writer(())).paged

    def _seen_state(self) -> _Seen:
        """Give what is remembered of the committed state that is looked at."""
        paged, revision = self._paged(), 0 if self._writer is None else self._writer.revision
        seen = self._seen
        if seen is None or seen.paged is not paged or seen.revision != revision:
            seen = self._seen = _Seen(paged, revision, Quick(paged.read_at), {})
        return seen

    def _check_open(self, key: Key = ()) -> None:
        if self._closed:
            raise EngineError(f"the store {self._path} is closed", key=key)

    def _need_writer(self, key: Key) -> Writer:
        if self._writer is None:
            raise ReadOnly(
                f"{self._path} was opened for reading; open it with mode 'a' to change it", key=key
            )
        return self._writer

    def _look(self, key: Key, action: Callable[[Any], T]) -> T:
        """Call ``action(root)`` on one committed state, or on that of the transaction at hand."""
        check(key)
        with self._lock:
            self._check_open(key)
            try:
                if self._reader is not None:
                    return self._reader.read(action)  # type: ignore[no-any-return]
                return action(self._need_writer(key).root)
            except (LabError, IndexError, MemoryError):
                raise
            except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
                raise Corrupt(f"{show(key)!r} in {self._path} can't be read: {error}", key=key) from error

    @contextmanager
    def _guarded(self, key: Key) -> Iterator[Any]:
        """Hold the lock and give the root; what HDF5 can't make sense of is `Corrupt`."""
        with self._changing(key) as root:
            try:
                yield root
            except (LabError, MemoryError):
                raise
            except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
                raise Corrupt(f"{show(key)!r} in {self._path} can't be changed: {error}", key=key) from error

    @contextmanager
    def _changing(self, key: Key) -> Iterator[Any]:
        """Hold the lock and give the root, for checks that come before a change."""
        check(key)
        with self._lock:
            self._check_open(key)
            writer = self._need_writer(key)
            if self._doomed is not None:
                raise EngineError(
                    f"this transaction on {self._path} was undone by an error ({self._doomed}); "
                    "leave it and start anew",
                    key=key,
                )
            if not self._changed:  # else the commit to come does it again
                writer.check()
            yield writer.root

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        """Commit what is done inside, at once or with the transaction around it; undo it if it fails."""
        with Uninterrupted():  # HDF5 knows nothing of it
            writer = self._need_writer(())
            self._changed = True
            try:
                yield
            except BaseException as error:
                self._fail(writer.failure or error)
                raise
            if writer.failure is not None:
                self._fail(writer.failure)
            if not self._depth:
                self._changed = False
                writer.commit()

    def _fail(self, cause: BaseException) -> None:
        """Undo a change that failed, and the transaction around it, and say so."""
        self._undo()
        self._doomed = cause if self._depth else None
        if not isinstance(cause, Exception):
            raise cause
        if not isinstance(cause, LabError):
            raise self._need_writer(()).refused(cause) from cause

    @contextmanager
    def _nested(self) -> Iterator[None]:
        outer = self._depth
        try:
            self._depth = outer + 1  # not counted up and down: Ctrl-C may come in between
            yield
        except BaseException:
            self._depth = outer
            if not outer:
                self._end(failed=True)
            raise
        self._depth = outer
        if not outer:
            self._end(failed=False)

    def _end(self, *, failed: bool) -> None:
        with Uninterrupted():
            self._settle(failed=failed)

    def _settle(self, *, failed: bool) -> None:
        doomed, self._doomed = self._doomed, None
        if self._closed:
            if not failed:
                raise EngineError(
                    f"{self._path} was closed inside a transaction, which was undone; close it after the "
                    "transaction",
                    key=self._path,
                )
        elif doomed is not None:
            if not failed:
                raise EngineError(
                    f"the transaction on {self._path} was undone: {doomed}", key=self._path
                ) from doomed
        elif failed and self._changed:
            self._undo()
        elif self._changed:
            self._changed = False
            try:
                self._need_writer(()).commit()
            except BaseException:
                self._tell_undone()
                raise
            self._joined.clear()

    def _undo(self) -> None:
        self._changed = False
        self._need_writer(()).rollback()
        self._tell_undone()

    def _when_undone(self, action: Callable[[], None]) -> None:
        """Call something if the transaction at hand is undone."""
        if self._depth:
            self._joined.append(action)

    def _tell_undone(self) -> None:
        while self._joined:
            self._joined.pop()()
