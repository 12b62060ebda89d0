"""One opened folder: its writer's transactions, and the readers' view of one committed state."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from datastore_lab.errors import EngineError, LabError, Locked, ReadOnly
from datastore_lab.folders import files
from datastore_lab.folders.log import TreeLog

T = TypeVar("T")
MODES = ("r", "r+", "a", "w", "x")
_PATIENCE = 30.0
_ATTEMPTS = 5


class Session:
    """What lies between an engine and the redo log.

    Parameters
    ----------
    root : str
        Absolute path of the folder.
    mode : str
        One of `MODES`.
    head : str
        Name of the file in the root whose time stamp is the revision.
    tree : object with an ``overlay`` and a method ``reset``
        The view with the pending changes.
    durable : bool
        Whether commits are synced.
    """

    def __init__(self, root: str, mode: str, head: str, tree: Any, *, durable: bool) -> None:
        if mode not in MODES:
            raise EngineError(f"{mode!r} is no mode; take one of 'r', 'r+', 'a', 'w', 'x'", key=mode)
        self.root, self.mode = root, mode
        self.lock = threading.RLock()
        self.log = TreeLog(root, head, durable=durable)
        self.undo: list[Callable[[], None]] = []
        self.depth = 0
        self.closed = False
        self._tree = tree
        self._process = os.getpid()
        self._ready = False

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        return self.mode != "r"

    def open(self, check: Callable[[str, str], bool], begin: Callable[[], None], timeout: float) -> None:
        """Check the place, take the lock if it is to be written, and make the store if it is new.

        Parameters
        ----------
        check : callable
            Of root and mode: refuses what is no store; says whether one is to be made.
        begin : callable
            Stages an empty store.
        timeout : float
            How long to wait for another writer, in seconds.
        """
        if not self.writable:
            self.settle()
            check(self.root, self.mode)
            return
        if not self.log.pending():
            check(self.root, self.mode)
        with disk(self.root):
            self.log.lock(timeout)
            try:
                self._start(check(self.root, self.mode), begin)
            except BaseException:
                self.log.close()
                raise

    def _start(self, fresh: bool, begin: Callable[[], None]) -> None:
        if os.path.isdir(self.root) and not os.access(self.root, os.W_OK):
            raise ReadOnly(
                f"{self.root!r} can't be written: it belongs to another user; open it with mode 'r'",
                key=self.root,
            )
        if fresh and not os.path.isdir(self.root):
            files.make_folder(self.root)
            files.sync(os.path.dirname(self.root))
        if fresh or self.mode == "w":
            with self.transaction():
                begin()
        self._ready = True

    def revision(self) -> int:
        """Give the number of the last commit."""
        return os.stat(self.log.head).st_mtime_ns

    # -- reading -----------------------------------------------------------------------------------

    def consistent(self, work: Callable[[], T], *, listing: bool = False) -> T:
        """Do some reading; again, if it failed or listed names while a commit was carried out.

        What is read of one item needs no second look: its description is replaced as a whole and proves all
        the rest by checksums. A listing that takes longer than the time between two commits may, after
        `_ATTEMPTS`, mix states.
        """
        if self.writable:
            with self.lock, disk(self.root):
                self.check_open()
                return work()
        deadline, attempt = time.monotonic() + _PATIENCE, 0
        while time.monotonic() < deadline:
            attempt += 1
            self.check_open()
            self.settle()
            before = self._state()
            try:
                with disk(self.root):
                    result = work()
                if not listing or attempt > _ATTEMPTS or self._state() == before:
                    return result
            except (LabError, OSError, IndexError):
                if self._state() == before or (listing and attempt > _ATTEMPTS):
                    raise
        raise EngineError(f"{self.root!r} changes faster than it can be read; try again", key=self.root)

    def _state(self) -> object:
        """Give something that differs after a commit, and never equals itself during one."""
        if self.log.pending():
            return object()
        try:
            return self.revision()
        except OSError as error:
            return error.errno

    def settle(self) -> None:
        """Let a commit that is being carried out end, or carry it out if its writer is gone."""
        deadline = time.monotonic() + _PATIENCE
        while self.log.pending():
            helper = TreeLog(self.root, os.path.basename(self.log.head))
            try:
                helper.lock()
                helper.close()
            except Locked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
            except ReadOnly as error:
                raise EngineError(
                    f"{self.root!r} holds a commit that was interrupted, and the place can't be written; "
                    "open it once for writing, where that is allowed, to complete it",
                    key=self.root,
                ) from error

    # -- changes -----------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is staged at the end of the outermost block, or forget it."""
        with self.lock:
            self.check_open()
            if not self.writable:
                raise ReadOnly(
                    f"{self.root!r} is open for reading only; open it with mode 'a' to change it",
                    key=self.root,
                )
            self._check_there()
            self.depth += 1
            try:
                yield
                if self.depth == 1:
                    self._commit()
            except BaseException:
                if self.depth == 1:
                    self._roll_back()
                raise
            finally:
                self.depth -= 1

    @contextmanager
    def change(self) -> Iterator[None]:
        """Stage one change; if it fails half-way it is undone, even if its transaction goes on."""
        with self.transaction(), disk(self.root):
            mark, undoable = self._tree.overlay.mark(), len(self.undo)
            try:
                yield
            except BaseException:
                self._tree.overlay.undo(mark)
                self._run_undo(undoable)
                raise

    def _commit(self) -> None:
        if self.closed:
            raise EngineError(
                f"{self.root!r} was closed inside a transaction; nothing was changed", key=self.root
            )
        with disk(self.root):
            self.log.commit(self._tree.overlay)
            self._tree.reset()
            self.undo.clear()
            self.log.discard()

    def _roll_back(self) -> None:
        """Forget what was not committed; a commit that is in the log stands: the next call carries it out."""
        self._tree.reset()
        if not self.log.pending():
            self._run_undo(0)
            with contextlib.suppress(OSError):  # leftovers are harmless, and the first error matters
                self.log.discard()
        self.undo.clear()

    def _run_undo(self, down_to: int) -> None:
        while len(self.undo) > down_to:
            self.undo.pop()()

    def close(self) -> None:
        """Let go of the place; may be called twice."""
        with self.lock:
            if not self.closed:
                self.closed = True
                self._tree.reset()
                self.log.close()

    def _check_there(self) -> None:
        if self._ready and not os.path.lexists(self.log.head):
            raise EngineError(
                f"{self.root!r} was removed under the open store, so nothing more can be kept in it; close "
                "the store and open it anew",
                key=self.root,
            )

    def check_open(self) -> None:
        """Refuse to go on with a closed store; carry out a commit that an error of the disk interrupted."""
        if self.writable and os.getpid() != self._process:
            raise EngineError(
                f"{self.root!r} was opened by the parent of this process; open it here anew, with mode 'r'",
                key=self.root,
            )
        if self.closed:
            raise EngineError(f"{self.root!r} is closed; open it again", key=self.root)
        if self.log.locked and self.depth == 0 and self.log.pending():
            with disk(self.root):
                self.log.recover()


@contextmanager
def disk(root: str) -> Iterator[None]:
    """Turn errors of the operating system into ours."""
    try:
        yield
    except LabError:
        raise
    except PermissionError as error:
        raise ReadOnly(
            f"{root!r}: {error.strerror} ({error.filename!r}); nothing was changed", key=root
        ) from error
    except OSError as error:
        raise EngineError(
            f"{root!r}: the disk refused ({error.strerror or error}, {error.filename!r}); what was not "
            "committed is undone: free space or check the disk, and try again",
            key=root,
        ) from error
