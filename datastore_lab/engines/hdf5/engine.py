"""Records in one HDF5 file that is never left half-written.

The file is an ordinary HDF5 file of the oldest format, which h5py, MATLAB, h5web, netCDF tools and xarray
read. All changes go through a rollback journal beside it (see `datastore_lab.engines.hdf5.journal`): after a
crash at any moment the next open finds the last commit.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from datastore_lab import media
from datastore_lab.engines.hdf5 import check as checking
from datastore_lab.engines.hdf5 import copy as copying
from datastore_lab.engines.hdf5 import describe, layout, links, payload, walk
from datastore_lab.engines.hdf5.append import HDF5Appender, begin
from datastore_lab.engines.hdf5.disk import Disk
from datastore_lab.engines.hdf5.files import Writer, real_path
from datastore_lab.engines.hdf5.links import Unusual
from datastore_lab.engines.hdf5.quick import Quick
from datastore_lab.engines.hdf5.reader import Reader
from datastore_lab.engines.hdf5.types import carry
from datastore_lab.errors import AlreadyExists, BadKey, Corrupt, EngineError, LabError, NotFound, ReadOnly
from datastore_lab.keys import Key, check, show
from datastore_lab.records import (
    GROUP,
    Problem,
    Record,
    Repair,
    Selection,
    Stat,
    Traits,
    check_durability,
    check_record,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.hdf5.pages import PagedFile

T = TypeVar("T")

_PAGE = 200
_REMEMBERED = 64


class _Seen(NamedTuple):
    """What is remembered of one committed state of the file."""

    paged: PagedFile
    revision: int
    quick: Quick
    nodes: dict[Key, describe.Node]


class HDF5Engine:
    """A tree of records in one HDF5 file.

    One writer at a time, held by a lock that dies with its process; any number of readers, in any process,
    which always see the state of some commit.

    Parameters
    ----------
    path : path-like
        The file.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py. ``"w"`` replaces an old file only when the new, empty one is complete.
    timeout : float, default 0.0
        How long to wait for another writer, in seconds.
    durability : {"disk", "process"}
        What a commit survives: a power cut, or only the end of the process.
    disk : Disk, optional
        The calls that reach the disk; tests record them or let them fail.

    Raises
    ------
    NotFound, AlreadyExists, ReadOnly, Locked, Foreign, Corrupt, EngineError

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> engine = HDF5Engine(pathlib.Path(folder.name) / "run.h5")
    >>> engine.write(("a",), Record("array", {"data": np.arange(3)}, {}, {}))
    >>> engine.read(("a",), "data", (slice(1, None),))
    array([1, 2])
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="HDF5",
        structure="hierarchy of n-D arrays",
        compresses=True,
        appends=True,
        hierarchical=True,
        n_dimensional=True,
        self_describing=True,
        parallel_write=False,
        cloud=False,
        opens_in=("h5py", "xarray", "MATLAB", "h5web", "HDFView", "netCDF4"),
    )

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
        self._seen: _Seen | None = None
        self._streams: weakref.WeakValueDictionary[Key, HDF5Appender] = weakref.WeakValueDictionary()
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

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        """Yield the keys of all records at or below `prefix`, parents before their children."""
        yield from self._look(prefix, lambda root: list(walk.keys(_node(root, prefix), prefix)))

    def children(self, prefix: Key = ()) -> Iterator[str]:
        """Yield the names of the child nodes of one node; what they lead to is looked at page by page."""
        found = self._look(prefix, lambda root: list(_node(root, prefix)))
        for at in range(0, len(found), _PAGE):
            page = found[at : at + _PAGE]
            names = self._look(prefix, lambda root, page=page: walk.children(root, prefix, page))  # type: ignore[misc]
            yield from map(links.decode, names)

    def stat(self, key: Key) -> Stat:
        """Describe a node without reading payload; what is not read is in ``meta["lab_refused"]``."""
        return self._look(key, lambda root: self._describe(root, key).shown())

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read one array of a record, or a part of it."""
        return self._look(key, lambda root: self._read(root, key, name, selection))

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key: atomic and durable."""
        check_record(record)
        media.check_json(record.meta)
        carried = {name: carry(array) for name, array in record.arrays.items()}
        with self._guarded(key) as root:
            _refuse_root(key)
            taken = {*carried, *itertools.chain.from_iterable(record.dims.values())}
            there = layout.check_free(root, key, taken)
            with self._atomic():
                group = layout.make(root, key, bare=True)
                layout.put_record(group, record, carried, fresh=not there)
            self._streams.pop(key, None)  # its rows have no place any more

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node, and remove those in `drop`; all others stay as they are."""
        media.check_json(meta)
        with self._guarded(key) as root:
            node = _node(root, key)
            found = describe.checked(node, key, self._path)
            with self._atomic():
                layout.drop_meta(node, drop)
                layout.put_meta(node, meta, found.arrays)
                if found.seal is not None or (found.stat.kind == GROUP and not found.stat.meta):
                    describe.seal(node)  # what another program made and may change again has none

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        _refuse_root(old)
        _refuse_root(new)
        check(new)
        with self._guarded(old) as root:
            _node(root, old)
            if new[: len(old)] == old:
                raise BadKey(f"{show(old)!r} can't be moved into itself, to {show(new)!r}", key=new)
            if links.find(root, new) is not None:
                raise AlreadyExists(f"there is something at {show(new)!r} already", key=new)
            layout.check_free(root, new, set())
            with self._atomic():
                source, target = _node(root, old[:-1]), layout.make(root, new[:-1])
                name = media.escape_link(new[-1]).encode()
                source.links.move(links.link_of(source, old[-1]), target, name, lcpl=links.LINK)

    def delete(self, key: Key) -> None:
        """Delete a node with everything below it."""
        _refuse_root(key)
        with self._guarded(key) as root:
            _node(root, key)
            with self._atomic():
                parent = _node(root, key[:-1])
                with links.pinned(root):
                    parent.unlink(links.link_of(parent, key[-1]))

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

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        """Read everything at or below `key` and yield what is not as it was written."""
        nodes = self._look(key, lambda root: list(walk.nodes(_node(root, key), key)))
        for at, error in nodes:
            if error is not None:
                yield Problem(at, None, f"HDF5 can't open it: {error}")
                continue
            yield from self._look(at, lambda root, at=at: list(checking.problems(root, at, self._source())))  # type: ignore[misc]

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        """Mend what can be mended without guessing, and say what was done and what was not."""
        writer = self._need_writer(key)
        if writer.recovered:
            what = "the last writer did not finish; the file was brought back to its last commit"
            yield Repair((), None, what, mended=True)
        for at in list(dict.fromkeys(problem.key for problem in self.verify(key))):
            with self._guarded(at) as root, self._atomic():
                steps = list(checking.mend(root, at, self._source(), accept=accept))
            yield from steps

    def compact(self) -> int:
        """Write the file anew without the space of what was deleted; returns bytes freed."""
        with self._guarded(()) as root:
            if self._depth:
                raise EngineError("a store can't be compacted inside a transaction", key=self._path)
            return copying.compact(self._need_writer(()), root, self._path, self._disk)

    def append(self, key: Key, spec: Stat) -> HDF5Appender:
        """Begin a record that grows along axis 0."""
        with self._guarded(key) as root:
            _refuse_root(key)
            begin(self, root, key, spec)
            self._streams[key] = appender = HDF5Appender(self, key, spec)
        return appender

    def close(self) -> None:
        """Release the file and its lock; what was not committed is undone. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for part in (self._writer, self._reader):
                if part is not None:
                    part.close()

    def _describe(self, root: Any, key: Key) -> describe.Node:
        if self._changed:  # what is not committed is not in the file yet
            return describe.checked(_node(root, key), key, self._path)
        state = self._seen_state()
        node = state.nodes.get(key)
        if node is None:
            node = self._described(root, key, state.quick)
            if self._writer is None or all(array.dataset is None for array in node.arrays.values()):
                if len(state.nodes) >= _REMEMBERED:
                    state.nodes.clear()
                state.nodes[key] = node  # a writer's must hold nothing open, which could not be deleted then
        return node

    def _described(self, root: Any, key: Key, quick: Quick) -> describe.Node:
        try:
            return quick.node(links.address(root, key), key, self._path)
        except Unusual:  # not of the plain form; nor is what is missing or damaged, which is said here
            return describe.checked(_node(root, key), key, self._path)

    def _seen_state(self) -> _Seen:
        """Give what is remembered of the committed state that is looked at."""
        paged, revision = self._paged(), 0 if self._writer is None else self._writer.revision
        seen = self._seen
        if seen is None or seen.paged is not paged or seen.revision != revision:
            seen = self._seen = _Seen(paged, revision, Quick(paged.read_at), {})
        return seen

    def _read(self, root: Any, key: Key, name: str, selection: Selection) -> NDArray[Any]:
        node = self._describe(root, key)
        array = node.arrays.get(name)
        if array is None:
            raise describe.explain(_node(root, key), key, name, node)
        return payload.read(array, name, selection, key, self._source())

    def _source(self) -> payload.Source:
        paged = self._paged()
        return payload.Source(self._path, paged.size, paged.read_at)

    def _paged(self) -> PagedFile:
        return (self._reader or self._need_writer(())).paged

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
            writer.check()
            yield writer.root

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        """Commit what is done inside, at once or with the transaction around it; undo it if it fails."""
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
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if not self._depth:
                self._end(failed=True)
            raise
        self._depth -= 1
        if not self._depth:
            self._end(failed=False)

    def _end(self, *, failed: bool) -> None:
        doomed, self._doomed = self._doomed, None
        if self._closed:
            if not failed:
                raise EngineError(
                    f"{self._path} was closed inside a transaction; nothing was changed", key=self._path
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
            self._need_writer(()).commit()

    def _undo(self) -> None:
        self._changed = False
        self._need_writer(()).rollback()


def _node(root: Any, key: Key) -> Any:
    node = links.find(root, key)
    if node is None:
        raise NotFound(f"there is nothing at {show(key)!r}", key=key)
    return node


def _refuse_root(key: Key) -> None:
    if not key:
        raise BadKey("the root holds no record and can't be moved or deleted; give a name", key=key)
