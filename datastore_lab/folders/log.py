"""Transactions on a folder tree: a redo log in a folder beside it.

Beside the tree ``<path>`` there is, while it is open for writing, the folder ``<path>-journal`` with

- ``lock``: an exclusive lock, and who holds it (JSON: host, pid, since);
- ``stage/``: new files and folders, complete and synced before they are named in the log;
- ``hold/``: what a commit has taken out of the tree, either to be put elsewhere or to be deleted;
- ``log``: the commit. JSON of two lists of renames, ``takes`` (tree to hold) and ``puts`` (stage or hold
  to tree), with paths ``t/...`` in the tree and ``j/...`` in the journal folder.

A commit that puts one thing in place needs no log: its rename is the commit. For all others the commit point
is the rename of ``log.new`` to ``log``. After it the renames are carried out, the folders synced, and the
log removed. Once the log is durable nothing takes it back: what the disk refuses from then on is done by the
next call. What it refuses before is taken back, by the next call if the disk refuses that, too.
A take is done if its target is there; a put is done if its source is gone, and that of a file may be done
twice, as its source stays until the end. So a log can be carried out again after any interruption. Only where
a commit *moves* something, a take's target disappears again in the second round: there the log is renamed to
``log.puts`` between the rounds. A complete log is carried out at the next opening, leftovers without a log
are discarded. The folder vanishes when the tree is closed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import threading
import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import xxhash

from datastore_lab.errors import Corrupt, EngineError, Locked, ReadOnly
from datastore_lab.folders import files
from datastore_lab.folders.overlay import Plan
from datastore_lab.locks import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LOG, _PUTS = "log", "log.puts"
_LARGE = 1 << 20
"""Files of so many bytes are given to the disk as soon as they are written."""

_RACE = 0.2
"""How long a writer waits for the lock, in seconds: a reader takes it for a moment to complete a commit."""


class TreeLog:
    """The journal folder of one tree.

    Parameters
    ----------
    root : str
        Absolute path of the tree; the journal folder lies beside it.
    head : str
        Name of the file in the tree's root whose time stamp, in ns, is the revision.
    durable : bool, default True
        False leaves out every sync: commits then survive the end of the process, but no power cut.
    """

    def __init__(self, root: str, head: str, *, durable: bool = True) -> None:
        self.root = root
        self.head = os.path.join(root, head)
        self.durable = durable
        self.home = root + "-journal"
        self.stage = os.path.join(self.home, "stage")
        self.hold = os.path.join(self.home, "hold")
        self._release: weakref.finalize[..., TreeLog] | None = None
        self._numbers = itertools.count()
        self._unsynced: list[str] = []
        self._large = files.LargeFiles()
        self._lock = threading.Lock()  # several threads may write
        self._known = False  # whether the folder itself is durable
        self._point: files.SyncPoint | None = None
        self._take_back: Callable[[], None] | None = None

    # -- the lock ----------------------------------------------------------------------------------

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._release is not None

    def lock(self, timeout: float = 0.0) -> None:
        """Take the lock, making the folder if it is missing; then bring the tree to its last commit.

        Raises
        ------
        Locked
            If another writer has it, in this process or another.
        ReadOnly
            If the place can't be written.
        """
        try:
            lock = self._take(timeout)
        except Locked:
            raise
        except OSError as error:
            kind = (
                ReadOnly if isinstance(error, PermissionError) or error.errno == errno.EROFS else EngineError
            )
            raise kind(
                f"{self.home!r} can't be made ({error.strerror}); open with mode 'r' to read", key=self.root
            ) from error
        self._release = weakref.finalize(self, _let_go, lock, self.home, os.getpid())
        try:
            self.recover()
            for folder in (self.stage, self.hold):
                if not os.path.isdir(folder):
                    files.make_folder(folder)
        except BaseException:
            self.close()
            raise

    def _take(self, timeout: float) -> FileLock:
        while True:
            with contextlib.suppress(FileExistsError):
                files.make_folder(self.home)
            # its last holder removes the folder: then it is made again
            with contextlib.suppress(FileNotFoundError):
                return FileLock(os.path.join(self.home, "lock"), repr(self.root), timeout=max(_RACE, timeout))

    def close(self) -> None:
        """Give the lock back and remove the folder, unless a commit in it could not be carried out.

        Raises
        ------
        EngineError
            If a change that failed could not be taken back.
        """
        if self._release is None:
            return
        release, self._release = self._release, None
        try:
            self._undo_failed()
        except OSError as error:
            raise EngineError(
                f"the disk refused the last change of {self.root!r}, and refuses to take it back "
                f"({error.strerror}); look whether it is there when you open the store again",
                key=self.root,
            ) from error
        finally:
            release()

    def _sync(self, path: str) -> None:
        if self.durable:
            files.sync(path)

    # -- commits -----------------------------------------------------------------------------------

    def new(self, name: str = "") -> str:
        """Give a fresh path in the stage."""
        return os.path.join(self.stage, f"{next(self._numbers)}{name}")

    def _new_hold(self) -> str:
        return os.path.join(self.hold, str(next(self._numbers)))

    def write(self, path: str, *buffers: Any) -> None:
        """Write a file in the stage; it becomes durable with the commit."""
        if self.durable and sum(memoryview(buffer).nbytes for buffer in buffers) >= _LARGE:
            self._large.write(path, *buffers)
            return
        self._begin()
        files.write(path, *buffers)
        self._unsynced.append(path)

    def make_folder(self, path: str) -> None:
        """Make a folder in the stage; it becomes durable with the commit."""
        self._begin()
        files.make_folder(path)
        self._unsynced.append(path)

    def _begin(self) -> None:
        with self._lock:
            if self.durable and self._point is None:
                self._point = files.SyncPoint(self.stage)

    def discard(self) -> int:
        """Drop everything that is staged and no part of a commit; returns the bytes of it."""
        if self.pending():
            return 0
        self._large.close()
        self._unsynced.clear()
        if self._point is not None:
            self._point.close()
            self._point = None
        return files.empty(self.stage)

    def _sync_staged(self, *more: str) -> None:
        """Wait until everything that is staged is durable, and some files of the commit itself."""
        self._large.sync()
        point, self._point = self._point, None
        if self.durable:
            (point or files.SyncPoint(self.stage)).sync([*self._unsynced, self.stage, *more])
        self._unsynced.clear()

    def commit(self, overlay: Any) -> None:
        """Make pending changes true, durably and as a whole."""
        plan = overlay.plan(self._new_hold, self.stage)
        if not plan.takes and len(plan.puts) == 1 and self._commit_one(*plan.puts[0]):
            return
        if plan.takes or plan.puts:
            self._commit_several(plan)

    def _commit_one(self, source: str, target: str) -> bool:
        """Put one file or folder in place: its rename is atomic by itself and needs no log."""
        kept = self._new_hold() if os.path.lexists(target) else None
        if kept is not None:
            try:
                files.link(target, kept)
            except OSError:  # not every file system gives a file two names, to take it back by
                return False
        self._sync_staged()
        with self._taken_back_by(partial(self._put_back, source, target, kept)):
            files.rename(source, target)
            self._sync(os.path.dirname(target))
            self.touch()
        if kept is not None:
            with contextlib.suppress(OSError):  # the next opening finds it in the hold
                files.unlink(kept)
        return True

    def _put_back(self, source: str, target: str, kept: str | None) -> None:
        if kept is None and not os.path.lexists(source):
            files.rename(target, source)
        elif kept is not None and os.path.lexists(kept):
            files.rename(kept, target)
        if os.path.lexists(self.head):
            self.touch()

    def _commit_several(self, plan: Plan) -> None:
        log = os.path.join(self.home, _LOG)
        with contextlib.suppress(FileNotFoundError):
            files.unlink(log + ".new")
        files.write(log + ".new", self._to_text(plan))
        self._sync_staged(log + ".new")
        if not self._known:
            self._sync(os.path.dirname(self.home))
            self._known = True
        with self._taken_back_by(partial(self._remove, log)):
            files.rename(log + ".new", log)
            self._sync(self.home)
        with contextlib.suppress(OSError):  # it is durable by now, and the next call goes on with it
            self._carry_out(plan, takes_are_done=False)

    def _remove(self, log: str) -> None:
        """Remove a log; one that came back after a power cut would find its stage emptied."""
        with contextlib.suppress(FileNotFoundError):
            files.unlink(log)
        self._sync(self.home)

    @contextmanager
    def _taken_back_by(self, undo: Callable[[], None]) -> Iterator[None]:
        """Take back what the block did if it fails; until that succeeds, nothing else is done."""
        try:
            yield
        except BaseException:
            self._take_back = undo
            with contextlib.suppress(OSError):  # the next call tries again, and the first error matters
                self._undo_failed()
            raise

    def _undo_failed(self) -> None:
        if self._take_back is not None:
            self._take_back()
            self._take_back = None

    def pending(self) -> bool:
        """Whether there is a commit that is not carried out, or a failed one that is not taken back."""
        logs = (os.path.join(self.home, name) for name in (_LOG, _PUTS))
        return self._take_back is not None or any(map(os.path.lexists, logs))

    def committed(self) -> bool:
        """Whether there is a commit that stands, though it is not carried out."""
        return self._take_back is None and self.pending()

    def recover(self) -> None:
        """Carry out a commit that was interrupted, and discard what was no commit; needs the lock."""
        self._undo_failed()
        for name in (_LOG, _PUTS):
            path = os.path.join(self.home, name)
            if os.path.lexists(path):
                self._carry_out(self._from_text(path), takes_are_done=name == _PUTS)
        with contextlib.suppress(FileNotFoundError):
            files.unlink(os.path.join(self.home, "log.new"))
        self.discard()
        files.empty(self.hold)
        if os.path.lexists(self.head):
            self.touch()  # a commit without a log may have been interrupted before

    def _carry_out(self, plan: Plan, *, takes_are_done: bool) -> None:
        moves = any(source.startswith(self.hold + os.sep) for source, _ in plan.puts)
        log, puts = os.path.join(self.home, _LOG), os.path.join(self.home, _PUTS)
        if not takes_are_done:
            for source, target in plan.takes:
                if not os.path.lexists(target) and os.path.lexists(source):
                    files.rename(source, target)
            if moves:
                self._sync_all([self.hold, *(os.path.dirname(source) for source, _ in plan.takes)])
                files.rename(log, puts)
                self._sync(self.home)
        for source, target in plan.puts:
            if os.path.lexists(source):
                self._put(source, target)
        changed = [
            os.path.dirname(path)
            for path in itertools.chain((s for s, _ in plan.takes), (t for _, t in plan.puts))
        ]
        self._sync_all([*changed, self.hold] if plan.takes else changed)
        self.touch()
        files.unlink(puts if moves else log)
        # a log that came back after a power cut would find its takes undone, or undo what came after it
        self._sync(self.home)
        files.empty(self.hold)

    def _put(self, source: str, target: str) -> None:
        """Put something in place; a file keeps its name in the stage until that in the tree is durable.

        Else a power cut might leave it none. A folder can't have two: there the file system has to take care.
        """
        one = source
        if not os.path.isdir(source):
            with contextlib.suppress(OSError):  # not every file system gives a file two names
                one = files.twin(source)
        files.rename(one, target)

    def _sync_all(self, folders: Iterable[str]) -> None:
        if not self.durable:
            return
        outside = (name for name in dict.fromkeys(folders) if name == self.hold or not self._is_own(name))
        # one may itself have been taken out of the tree
        files.sync_all([folder for folder in outside if os.path.isdir(folder)])

    def _is_own(self, folder: str) -> bool:
        return folder == self.home or folder.startswith(self.home + os.sep)

    def touch(self) -> None:
        """Let the tree's revision grow: it is the time stamp of the head, in ns."""
        files.let_time_grow(self.head)

    # -- the log file ------------------------------------------------------------------------------

    def _to_text(self, plan: Plan) -> bytes:
        lists = [[[self._short(path) for path in pair] for pair in pairs] for pairs in plan]
        body = json.dumps({"takes": lists[0], "puts": lists[1]})
        return f"{xxhash.xxh3_128_hexdigest(body.encode())}\n{body}\n".encode()

    def _from_text(self, path: str) -> Plan:
        with open(path, "rb") as file:
            digest, _, body = file.read().partition(b"\n")
        body = body.removesuffix(b"\n")
        if xxhash.xxh3_128_hexdigest(body).encode() != digest:
            raise Corrupt(
                f"the commit log {path!r} is damaged, so the last change of {self.root!r} can't be "
                "completed; copy both folders away, then remove the log to open the store as it is",
                key=path,
            )
        lists = json.loads(body)
        return Plan(*([(self._long(a), self._long(b)) for a, b in lists[name]] for name in ("takes", "puts")))

    def _short(self, path: str) -> str:
        for sign, folder in (("j", self.home), ("t", self.root)):
            if path.startswith(folder + os.sep):
                return f"{sign}/{path[len(folder) + 1 :]}"
        raise EngineError(f"{path!r} lies neither in the store nor in its journal", key=path)

    def _long(self, path: str) -> str:
        if path[:2] not in {"j/", "t/"} or ".." in path.split("/"):
            raise Corrupt(
                f"the commit log of {self.root!r} names {path!r}, which leads out of the store", key=self.root
            )
        return os.path.join(self.home if path[0] == "j" else self.root, path[2:])


def _let_go(lock: FileLock, home: str, owner: int) -> None:
    """Remove the folder, the lock last, unless there is a commit in it; a forked child only lets go."""
    logs = (os.path.join(home, _LOG), os.path.join(home, _PUTS))
    if os.getpid() != owner or any(map(os.path.lexists, logs)):
        lock.release(remove=False)
        return
    try:
        for name in ("stage", "hold", "log.new"):
            path = os.path.join(home, name)
            if os.path.lexists(path):
                files.remove_tree(path)
    finally:
        lock.release()
    with contextlib.suppress(OSError):  # the next writer may have its lock in it already
        os.rmdir(home)
