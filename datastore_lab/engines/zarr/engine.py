"""Records in a Zarr v3 hierarchy in a local folder, with transactions.

A record is a group, its arrays are arrays in it, its children are subgroups: ``zarr.open_group``,
``xarray.open_datatree(path, engine="zarr")`` and any other Zarr v3 reader open it as it is. Changes go
through the redo log of `datastore_lab.folders.log`, in the folder ``<path>-journal``, which is there
only while the store is open for writing or after a crash.

A reader in another process needs no lock. Its every call sees one committed state: it waits while a commit is
carried out (some ms), carries out itself what a dead writer left, and starts again if what it read was
replaced meanwhile. Three things remain. Two calls may see two states. A list of keys that takes longer than
the time between two commits may, after five attempts, mix states. And programs that know nothing of the
journal may, in these ms, miss an item that is being replaced or see a stream's arrays differ in length.

While the store is open for writing, xarray wants ``consolidated=False`` and zarr's own ``keys()`` are slow: a
copy of all metadata in the root, which speeds them up, would be out of date. It is written at `close`, for
stores of up to 1,000 nodes, and dropped by the first change.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from datastore_lab.engines.zarr.append import ZarrAppender
from datastore_lab.engines.zarr.change import Changes
from datastore_lab.engines.zarr.opening import check_place
from datastore_lab.engines.zarr.places import FolderPlace
from datastore_lab.engines.zarr.read import read_array
from datastore_lab.engines.zarr.repair import mend
from datastore_lab.engines.zarr.tree import Tree
from datastore_lab.engines.zarr.verify import Finding, findings
from datastore_lab.errors import EngineError, LabError, Locked, ReadOnly
from datastore_lab.folders import files
from datastore_lab.folders.log import TreeLog
from datastore_lab.keys import Key, check
from datastore_lab.records import Problem, Record, Repair, Selection, Stat, Traits, check_durability

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

_PATIENCE = 30.0
_ATTEMPTS = 5


class ZarrEngine:
    """A tree of records in a folder, in Zarr's format of version 3.

    Parameters
    ----------
    path : str or path-like
        The folder; its parent must exist.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``w`` empties a Zarr store, and refuses a folder that is none.
    timeout : float, default 0.0
        How long to wait for another writer, in seconds.
    durability : {"disk", "process"}
        What a commit survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     engine = ZarrEngine(folder + "/data.zarr", "w")
    ...     engine.write(("a",), Record("array", {"data": np.arange(3)}, {"unit": "V"}, {}))
    ...     engine.read(("a",), "data", (slice(1, None),))
    ...     engine.close()
    array([1, 2])
    """

    traits: ClassVar[Traits] = Traits(
        label="Zarr",
        structure="hierarchy",
        compresses=True,
        appends=True,
        hierarchical=True,
        n_dimensional=True,
        self_describing=True,
        parallel_write=False,
        cloud=True,
        opens_in=("zarr-python", "xarray", "TensorStore", "zarrita.js", "Zarr.jl", "GDAL"),
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
    ) -> None:
        durable = check_durability(durability)
        if mode not in {"r", "r+", "a", "w", "x"}:
            raise EngineError(f"{mode!r} is no mode; take one of 'r', 'r+', 'a', 'w', 'x'", key=mode)
        self._root = os.path.realpath(os.fspath(path))
        self._mode = mode
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        self._changed = False
        self._log = TreeLog(self._root, "zarr.json", durable=durable)
        self._place = FolderPlace(self._root)
        self._tree = Tree(self._place)
        self._changes = Changes(self._tree, self._log)
        self._undo: list[Callable[[], None]] = []
        self._streams: weakref.WeakValueDictionary[Key, ZarrAppender] = weakref.WeakValueDictionary()
        self._process = os.getpid()
        self._ready = False
        self._open(mode, timeout)

    def _open(self, mode: str, timeout: float) -> None:
        if mode == "r":
            self._settle()
            check_place(self._root, mode)
            return
        if not self._log.pending():
            check_place(self._root, mode)
        with _disk(self._root):
            self._log.lock(timeout)
            try:
                self._start(mode)
            except BaseException:
                self._log.close()
                raise

    def _start(self, mode: str) -> None:
        fresh = check_place(self._root, mode)
        if os.path.isdir(self._root) and not os.access(self._root, os.W_OK):
            raise ReadOnly(
                f"{self._root!r} can't be written: it belongs to another user; open it with mode 'r'",
                key=self._root,
            )
        missing = not os.path.isdir(self._root)
        if missing:
            files.make_folder(self._root)
        if fresh or mode == "w":
            with self.transaction():
                self._changes.start()
        if missing and self._log.durable:
            files.sync(os.path.dirname(self._root))
        self._ready = True

    # -- what it is --------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self._root

    @property
    def writable(self) -> bool:
        return self._mode != "r"

    def revision(self) -> int:
        return os.stat(os.path.join(self._root, "zarr.json")).st_mtime_ns

    # -- reading -----------------------------------------------------------------------------------

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        prefix = check(prefix)
        yield from self._consistent(lambda: list(self._tree.keys(prefix)), strict=False)

    def children(self, prefix: Key = ()) -> Iterator[str]:
        prefix = check(prefix)
        parts, names = self._consistent(lambda: self._tree.candidates(prefix), strict=False)
        seen = set()
        for name in names:
            with self._lock:
                child = self._tree.child_name(parts, name)
            if child is not None and child not in seen:
                seen.add(child)
                yield child

    def stat(self, key: Key) -> Stat:
        key = check(key)
        return self._consistent(lambda: self._tree.stat(key))

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        key = check(key)
        return self._consistent(
            lambda: read_array(self._tree, key, name, selection), lambda: self._tree.identity(key, name)
        )

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for finding in self._findings(check(key)):
            yield finding.problem

    def _findings(self, key: Key) -> Iterator[Finding]:
        for found in self._consistent(lambda: [at for at, _ in self._tree.nodes(key)], strict=False):
            yield from self._consistent(lambda at=found: list(findings(self._tree, at)))  # type: ignore[misc]

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        key = check(key)
        if not key and (left := self.compact()):
            yield Repair(
                (), None, f"{left:,} bytes that a crash had left in the journal were removed", mended=True
            )
        for found in list(self._findings(key)):
            with self._change():
                done = mend(self._changes, found, accept=accept)
            yield done

    def _consistent(
        self, work: Callable[[], T], proof: Callable[[], object] | None = None, *, strict: bool = True
    ) -> T:
        """Do some reading again until what it has read was one committed state.

        `proof` gives something that stays the same as long as a commit does not matter; asking for it costs,
        so that is done only if there was a commit meanwhile.
        """
        if self.writable:
            with self._lock, _disk(self._root):
                self._check_open()
                return work()
        deadline = time.monotonic() + _PATIENCE
        for attempt in range(1_000_000):
            self._check_open()
            self._settle()
            revision = _outcome(self.revision)
            before = _outcome(proof) if proof is not None and attempt else None
            failure: Exception | None = None
            try:
                with _disk(self._root):
                    result = work()
            except (LabError, OSError, IndexError) as error:
                failure = error
            same = _outcome(self.revision) == revision
            if not same and failure is None and before is not None and proof is not None:
                same = _outcome(proof) == before
            if (same and not self._log.pending()) or (attempt >= _ATTEMPTS and not strict):
                if failure is not None:
                    raise failure
                return result
            if time.monotonic() > deadline:
                break
        raise EngineError(f"{self._root!r} changes faster than it can be read; try again", key=self._root)

    def _settle(self) -> None:
        """Let a commit that is being carried out end, or carry it out if its writer is gone."""
        deadline = time.monotonic() + _PATIENCE
        while self._log.pending():
            helper = TreeLog(self._root, "zarr.json")
            try:
                helper.lock()
                helper.close()
            except Locked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
            except ReadOnly as error:
                raise EngineError(
                    f"{self._root!r} holds a commit that was interrupted, and the place can't be written; "
                    "open it once for writing, where that is allowed, to complete it",
                    key=self._root,
                ) from error

    # -- changes -----------------------------------------------------------------------------------

    def write(self, key: Key, record: Record) -> None:
        with self._change():
            self._changes.write(check(key), record)
            self._streams.pop(check(key), None)  # its rows have no place any more

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        with self._change():
            self._changes.update(check(key), meta, drop)

    def move(self, old: Key, new: Key) -> None:
        with self._change():
            self._changes.move(check(old), check(new))

    def delete(self, key: Key) -> None:
        with self._change():
            self._changes.delete(check(key))

    def append(self, key: Key, spec: Stat) -> ZarrAppender:
        with self._change():
            self._changes.begin(check(key), spec)
            self._streams[check(key)] = appender = ZarrAppender(self, check(key), spec)
        return appender

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            self._check_open()
            if not self.writable:
                raise ReadOnly(
                    f"{self._root!r} is open for reading only; open it with mode 'a' to change it",
                    key=self._root,
                )
            self._check_there()
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._commit()
            except BaseException:
                if self._depth == 1:
                    self._roll_back()
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self.transaction(), _disk(self._root):
            mark, undoable = self._place.overlay.mark(), len(self._undo)
            try:
                yield
            except BaseException:  # a change that fails half-way is undone even if its transaction goes on
                self._place.overlay.undo(mark)
                self._run_undo(undoable)
                raise

    def _commit(self) -> None:
        if self._closed:
            raise EngineError(
                f"{self._root!r} was closed inside a transaction; nothing was changed",
                key=self._root,
            )
        with _disk(self._root):
            self._changed = self._changed or bool(self._place.overlay)
            self._log.commit(self._place.overlay)
            self._reset()
            self._undo.clear()
            self._log.discard()

    def _roll_back(self) -> None:
        """Forget what was not committed; a commit that is in the log stands: the next call carries it out."""
        self._reset()
        if not self._log.pending():
            self._run_undo(0)
            with contextlib.suppress(
                OSError
            ):  # leftovers in the stage are harmless, and the first error matters
                self._log.discard()
        self._undo.clear()

    def _reset(self) -> None:
        self._place.reset()
        self._tree.forget()

    def _run_undo(self, down_to: int) -> None:
        while len(self._undo) > down_to:
            self._undo.pop()()

    def compact(self) -> int:
        with self._change():
            return 0 if self._depth > 1 else self._log.discard() + files.empty(self._log.hold)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                own = os.getpid() == self._process and self._there()
                if self._changed and self._depth == 0 and own:
                    with self._change():
                        self._changes.consolidate()
            finally:
                self._closed = True
                self._reset()
                self._log.close()

    def _there(self) -> bool:
        return os.path.lexists(os.path.join(self._root, "zarr.json"))

    def _check_there(self) -> None:
        if self._ready and not self._there():
            raise EngineError(
                f"{self._root!r} was removed under the open store, so nothing more can be kept in it; close "
                "the store and open it anew",
                key=self._root,
            )

    def _check_open(self) -> None:
        if self.writable and os.getpid() != self._process:
            raise EngineError(
                f"{self._root!r} was opened by the parent of this process; open it here anew, with mode 'r'",
                key=self._root,
            )
        if self._closed:
            raise EngineError(f"{self._root!r} is closed; open it again", key=self._root)
        if self._log.locked and self._depth == 0 and self._log.pending():
            with _disk(self._root):
                self._log.recover()


def _outcome(proof: Callable[[], object]) -> object:
    try:
        return proof()
    except (LabError, OSError) as error:
        return repr(error)


@contextmanager
def _disk(root: str) -> Iterator[None]:
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
