"""One opened folder: its writer's transactions, and the readers' view of one committed state."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from datastore_lab.errors import EngineError, LabError, Locked, ReadOnly
from datastore_lab.folders import files
from datastore_lab.folders.log import TreeLog
from datastore_lab.interrupts import Uninterrupted

if TYPE_CHECKING:
    from datastore_lab.folders.overlay import Overlay

T = TypeVar("T")
MODES = ("r", "r+", "a", "w", "x")
_PATIENCE = 30.0
_ATTEMPTS = 5


class View(Protocol):
    """A tree with pending changes."""

    @property
    def overlay(self) -> Overlay:
        """The pending changes."""
        ...

    def reset(self) -> None:
        """Forget the pending changes, and what was read."""
        ...


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
    tree : View
        The tree with its pending changes.
    durable : bool
        Whether commits are synced.

    Attributes
    ----------
    undo : list of callable
        What takes back, beside the tree, the changes that were made since the last commit; last first.
    changed : bool
        Whether anything was committed.
    """

    def __init__(self, root: str, mode: str, head: str, tree: View, *, durable: bool) -> None:
        if mode not in MODES:
            raise EngineError(f"{mode!r} is no mode; take one of 'r', 'r+', 'a', 'w', 'x'", key=mode)
        self.root, self.mode = root, mode
        self.lock = threading.RLock()
        self.log = TreeLog(root, head, durable=durable)
        self.undo: list[Callable[[], None]] = []
        self.depth = 0
        self.closed = self.changed = False
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
        missing = not os.path.isdir(self.root)
        if missing:
            files.make_folder(self.root)
        if fresh or self.mode == "w":
            with self.transaction():
                begin()
        if missing and self.log.durable:
            files.sync(os.path.dirname(self.root))
        self._ready = True

    def revision(self) -> int:
        """Give the number of the last commit."""
        return os.stat(self.log.head).st_mtime_ns

    # -- reading -----------------------------------------------------------------------------------

    def consistent(
        self,
        work: Callable[[], T],
        *,
        proof: Callable[[], object] | None = None,
        proven: bool = False,
        listing: bool = False,
    ) -> T:
        """Do some reading again until what it has read was one committed state.

        Parameters
        ----------
        work : callable
        proof : callable, optional
            Gives something that stays the same as long as a commit does not matter; asking for it costs, so
            that is done only if there was a commit meanwhile.
        proven : bool
            Whether what is read proves by itself that it belongs together, so that only a failure is looked
            into.
        listing : bool
            Whether this takes longer the larger the store is: then it may, after `_ATTEMPTS`, mix states.
        """
        if not self.writable:
            return self._read(work, proof, proven=proven, listing=listing)
        with self.lock, disk(self.root):
            self.check_open()
            return work()

    def _read(
        self, work: Callable[[], T], proof: Callable[[], object] | None, *, proven: bool, listing: bool
    ) -> T:
        deadline, attempt = time.monotonic() + _PATIENCE, 0
        while attempt == 0 or time.monotonic() < deadline:
            self.check_open()
            self.settle()
            revision = _outcome(self.revision)
            before = _outcome(proof) if proof is not None and attempt else None
            enough = listing and attempt >= _ATTEMPTS
            try:
                with disk(self.root):
                    result = work()
            except (LabError, OSError, IndexError):
                if enough or self._stands(revision):
                    raise
            else:
                if proven or enough or self._stands(revision) or self._stands(before, proof):
                    return result
            attempt += 1
        raise EngineError(f"{self.root!r} changes faster than it can be read; try again", key=self.root)

    def _stands(self, before: object, proof: Callable[[], object] | None = None) -> bool:
        """Say whether something, by default the revision, is as before, with no commit going on."""
        if before is None or _outcome(proof or self.revision) != before:
            return False
        return not self.log.pending()

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
            outer = self.depth
            try:
                self.depth = outer + 1  # not counted up and down: Ctrl-C may come in between
                yield
                if not outer:
                    self._commit()
            except BaseException:
                if not outer:
                    self._roll_back()
                raise
            finally:
                self.depth = outer

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

    def when_undone(self, action: Callable[[], None]) -> None:
        """Call something if the transaction at hand is undone; to be called with the lock held."""
        if self.depth:
            self.undo.append(action)

    def _commit(self) -> None:
        if self.closed:
            raise EngineError(
                f"{self.root!r} was closed inside a transaction, which was undone; close it after the "
                "transaction",
                key=self.root,
            )
        with Uninterrupted(), disk(self.root):
            self.changed = self.changed or bool(self._tree.overlay)
            self.log.commit(self._tree.overlay)
            self._tree.reset()
            self.undo.clear()
            with contextlib.suppress(OSError):  # leftovers are harmless, and the change is made
                self.log.discard()

    def _roll_back(self) -> None:
        """Forget what was not committed; a commit that is in the log stands: the next call carries it out."""
        with Uninterrupted():
            self._tree.reset()
            if not self.log.committed():
                self._run_undo(0)
                with contextlib.suppress(OSError):  # leftovers are harmless, and the first error matters
                    self.log.discard()
            self.undo.clear()

    def _run_undo(self, down_to: int) -> None:
        while len(self.undo) > down_to:
            self.undo.pop()()

    def compact(self) -> int:
        """Remove what dead writers have left in the journal; returns the bytes of it."""
        return self.log.discard() + files.empty(self.log.hold)

    def close(self, finish: Callable[[], None] | None = None) -> None:
        """Let go of the place; may be called twice.

        Parameters
        ----------
        finish : callable, optional
            Stages a last change, for a store that was changed and is left in a good state.
        """
        with self.lock:
            if self.closed:
                return
            try:
                own = os.getpid() == self._process and self._there()
                if finish is not None and self.changed and self.depth == 0 and own:
                    with self.change():
                        finish()
            finally:
                self.closed = True
                self._tree.reset()
                self.log.close()

    def _there(self) -> bool:
        return os.path.lexists(self.log.head)

    def _check_there(self) -> None:
        if self._ready and not self._there():
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


def _outcome(proof: Callable[[], object]) -> object:
    try:
        return proof()
    except (LabError, OSError) as error:
        return repr(error)


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
