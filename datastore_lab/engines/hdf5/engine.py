"""Records in one HDF5 file that is never left half-written.

The file is an ordinary HDF5 file of the oldest format, which h5py, MATLAB, h5web, netCDF tools and xarray
read. All changes go through a rollback journal beside it (see `datastore_lab.engines.hdf5.journal`): after a
crash at any moment the next open finds the last commit.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from datastore_lab import media
from datastore_lab.engines.hdf5 import attrs, describe, layout, links, payload, space, spans, walk
from datastore_lab.engines.hdf5 import check as checking
from datastore_lab.engines.hdf5 import copy as copying
from datastore_lab.engines.hdf5.append import HDF5Appender, begin
from datastore_lab.engines.hdf5.disk import Disk
from datastore_lab.engines.hdf5.links import Unusual
from datastore_lab.engines.hdf5.salvage import salvage
from datastore_lab.engines.hdf5.session import Session
from datastore_lab.engines.hdf5.types import carry
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError
from datastore_lab.integrity import VERSION, known_layout
from datastore_lab.keys import Key, check, show
from datastore_lab.records import (
    COMPACT_ABOVE,
    GROUP,
    Problem,
    Record,
    Repair,
    Selection,
    Span,
    Stat,
    Traits,
    check_compact_above,
    check_record,
    refusals,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.engines.hdf5.quick import Quick

_PAGE = 200
_REMEMBERED = 64
_SMALL = 1 << 20


class HDF5Engine(Session):
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
    compact_above : float or None, default 0.5
        When the store is closed and more than this share of the file, and at least 64 MB, is known to be
        dead, `compact` is called; None leaves it to the caller.

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
        compact_above: float | None = COMPACT_ABOVE,
    ) -> None:
        super().__init__(path, mode, timeout=timeout, durability=durability, disk=disk)
        self._compact_above = check_compact_above(compact_above)
        self._streams: weakref.WeakSet[HDF5Appender] = weakref.WeakSet()

    @property
    def layout(self) -> int | None:
        """Version of the layout; None in a file of another program."""
        return self._look((), lambda root: known_layout(attrs.get(root, VERSION)))

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        """Yield the keys of all records at or below `prefix`, parents before their children."""
        found, closed = self._look(prefix, lambda root: self._keys(root, prefix))
        yield from found
        if closed:
            what = ", ".join(repr(show(at)) for at in closed[:5])
            raise Corrupt(
                f"what is below {what} in {self._path} can't be listed: HDF5 can't open it. All other keys "
                "were listed before this error; restore the rest from a copy",
                key=closed[0],
            )

    def children(self, prefix: Key = ()) -> Iterator[str]:
        """Yield the names of the child nodes of one node; what they lead to is looked at page by page."""
        looked: list[bytes] = []
        if self._writer is None:  # who writes may add children meanwhile, which are not to be listed
            looked, names = self._look(
                prefix, lambda root: walk.first_children(self._node(root, prefix), _PAGE)
            )
            yield from map(links.decode, names)
            if len(looked) < _PAGE:
                return
        rest = self._look(prefix, lambda root: walk.other_links(self._node(root, prefix), looked))
        for at in range(0, len(rest), _PAGE):
            page = rest[at : at + _PAGE]
            names = self._look(prefix, lambda root, page=page: walk.children(root, prefix, page))  # type: ignore[misc]
            yield from map(links.decode, names)

    def stat(self, key: Key) -> Stat:
        """Describe a node without reading payload; what is not read is in ``meta["lab_refused"]``."""
        return self._look(key, lambda root: self._describe(root, key).shown())

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read one array of a record, or a part of it."""
        return self._look(key, lambda root: self._read(root, key, name, selection))

    def read_whole(self, key: Key) -> Record | None:
        """Read all of a record at one commit; None for one that is large or grows."""
        return self._look(key, lambda root: self._small(root, key))

    def spans(self, key: Key) -> Mapping[str, Span]:
        """Tell where the arrays of a record lie in one piece in the file; none while it is changed."""
        return self._look(
            key, lambda root: {} if self._changed else spans.of(self._describe(root, key), self._path)
        )

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key: atomic and durable."""
        check_record(record)
        media.check_json(record.meta)
        carried = {name: carry(array) for name, array in record.arrays.items()}
        with self._guarded(key) as root:
            refusals.refuse_root(key, self._path)
            taken = {*carried, *itertools.chain.from_iterable(record.dims.values())}
            nearest, depth = layout.check_free(root, key, taken, self._path)
            with self._atomic():
                if depth < len(key):
                    layout.put_new(nearest, key[depth:], record, carried, self._need_writer(key).models)
                else:
                    space.note(root, space.held_by_record(nearest))
                    layout.put_record(nearest, record, carried, fresh=False)

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node, and remove those in `drop`; all others stay as they are."""
        media.check_json(meta)
        with self._guarded(key) as root:
            node = self._node(root, key)
            found = describe.checked(node, key, self._path)
            with self._atomic():
                layout.drop_meta(node, drop)
                layout.put_meta(node, meta, found.arrays)
                if found.seal is not None or (found.stat.kind == GROUP and not found.stat.meta):
                    describe.seal(node)  # what another program made and may change again has none

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        refusals.refuse_root(old, self._path)
        refusals.refuse_root(new, self._path)
        check(new)
        with self._guarded(old) as root:
            self._node(root, old)
            if new[: len(old)] == old:
                raise refusals.into_itself(old, new, self._path)
            if links.find(root, new) is not None:
                raise refusals.something_at(new, self._path)
            layout.check_free(root, new, set(), self._path)
            with self._atomic():
                source, target = self._node(root, old[:-1]), layout.make(root, new[:-1], self._path)
                name = media.escape_link(new[-1]).encode()
                source.links.move(links.link_of(source, old[-1]), target, name, lcpl=links.LINK)

    def delete(self, key: Key) -> None:
        """Delete a node with everything below it."""
        refusals.refuse_root(key, self._path)
        with self._guarded(key) as root:
            self._node(root, key)
            with self._atomic():
                parent = self._node(root, key[:-1])
                link = links.link_of(parent, key[-1]) or b""
                space.note(root, space.held(parent, link))
                with links.pinned(root):
                    parent.unlink(link)

    def put_dataset(self, name: str, array: NDArray[Any] | None) -> None:
        """Put an array into the root as a dataset that belongs to no record, as other programs do.

        Atomic and durable. One of this name is replaced; with None it is removed.
        """
        check((name,))
        carried = None if array is None else carry(array)
        with self._guarded(()) as root, self._atomic():
            if carried is None:
                layout.drop_dataset(root, name)
            else:
                layout.put_dataset(root, name, carried)

    def read_dataset(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read what `put_dataset` put, or a part of it, without a look at the other datasets."""
        check((name,))
        return self._look((), lambda root: self._dataset(root, name, selection))

    def _dataset(self, root: Any, name: str, selection: Selection) -> NDArray[Any]:
        array = describe.dataset_of(root, name, self._path)
        return payload.read(array, name, selection, (), self._source())

    def dataset_names(self) -> list[str]:
        """List the datasets of the root."""
        return self._look((), lambda root: [links.decode(link) for link in links.contents(root).datasets])

    def fingerprint(self, key: Key) -> str:
        """Give a text that is another one once other data is at a key."""
        return self._look(
            key,
            lambda root: describe.fingerprint(self._node(root, key), key, lambda: self._describe(root, key)),
        )

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        """Read everything at or below `key` and yield what is not as it was written."""
        nodes = self._look(key, lambda root: list(walk.nodes(self._node(root, key), key)))
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

    @classmethod
    def salvage(cls, path: str, target: str) -> str | None:
        """Make a whole file of one whose writer, another program, was stopped while it wrote."""
        return salvage(Disk(), path, target)

    def compact(self) -> int:
        """Write the file anew without the space of what was deleted; returns bytes freed."""
        with self._guarded(()) as root:
            if self._depth:
                raise EngineError("a store can't be compacted inside a transaction", key=self._path)
            return copying.compact(self._need_writer(()), root, self._path, self._disk)

    def close(self) -> None:
        """Release the file and its lock; what was not committed is undone. May be called twice."""
        with self._lock:
            if self._is_quiet():
                self._give_back()
            super().close()

    def _is_quiet(self) -> bool:
        """Whether nothing but the closing is going on: no transaction, no stream, no other process."""
        if self._closed or self._writer is None or not self._writer.is_usable:
            return False
        return not self._depth and all(stream.growth.closed for stream in self._streams)

    def _give_back(self) -> None:
        """Write the file anew if much of it is dead. If that fails it stays as it is: it is whole."""
        writer = self._need_writer(())
        with contextlib.suppress(LabError, OSError, RuntimeError, ValueError, KeyError):
            share = self._compact_above
            if share is None or not space.is_due(writer.root, self._path, share):
                return
            try:
                freed = self.compact()
            except Foreign:
                freed = 0
            if not freed:  # not to be tried at every close
                with self._guarded(()) as root, self._atomic():
                    space.note(root, -space.known(root))

    def append(self, key: Key, spec: Stat) -> HDF5Appender:
        """Begin a record that grows along axis 0."""
        with self._guarded(key) as root:
            refusals.refuse_root(key, self._path)
            appender = begin(self, root, key, spec)
            self._streams.add(appender)
        return appender

    def _node(self, root: Any, key: Key) -> Any:
        node = links.find(root, key)
        if node is None:
            raise refusals.nothing_at(key, self._path)
        return node

    def _describe(self, root: Any, key: Key) -> describe.Node:
        if self._changed:  # what is not committed is not in the file yet
            return describe.checked(self._node(root, key), key, self._path)
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
            return describe.checked(self._node(root, key), key, self._path)

    def _read(self, root: Any, key: Key, name: str, selection: Selection) -> NDArray[Any]:
        node = self._describe(root, key)
        array = node.arrays.get(name)
        if array is None:
            raise describe.explain(self._node(root, key), key, name, node, self._path)
        return payload.read(array, name, selection, key, self._source())

    def _keys(self, root: Any, prefix: Key) -> tuple[list[Key], list[Key]]:
        quick = None if self._changed else self._seen_state().quick
        return walk.keys(self._node(root, prefix), prefix, quick)

    def _small(self, root: Any, key: Key) -> Record | None:
        node = self._describe(root, key)
        if sum(array.info.nbytes for array in node.arrays.values()) > _SMALL or node.stat.kind == "stream":
            return None
        stat, source = node.shown(), self._source()
        arrays = {name: payload.read(array, name, (), key, source) for name, array in node.arrays.items()}
        return Record(stat.kind, arrays, stat.meta, {name: info.dims for name, info in stat.arrays.items()})
