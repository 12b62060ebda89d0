"""Records in this process's memory: the reference that every other engine is held against."""

from __future__ import annotations

import copy
import functools
import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.errors import EngineError, NotFound
from datastore_lab.keys import Key, check
from datastore_lab.records import (
    GROUP,
    ArrayInfo,
    Growth,
    Problem,
    Record,
    Repair,
    Selection,
    Stat,
    Traits,
    check_record,
    default_dims,
    gather,
    normalise_selection,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray


class _Node:
    """One node: a record or none, attributes, and children in insertion order."""

    __slots__ = ("arrays", "children", "dims", "kind", "meta", "written")
    _writes = itertools.count()

    def __init__(self) -> None:
        self.kind = GROUP
        self.arrays: dict[str, NDArray[Any]] = {}
        self.dims: dict[str, tuple[str, ...]] = {}
        self.meta: dict[str, Any] = {}
        self.children: dict[str, _Node] = {}
        self.written = next(self._writes)

    def names(self) -> set[str]:
        return {*self.arrays, *itertools.chain.from_iterable(self.dims.values())}

    def fork(self) -> _Node:
        """Copy the tree; the arrays themselves are never changed in place and may be shared."""
        twin = _Node()
        twin.kind, twin.arrays, twin.dims = self.kind, dict(self.arrays), dict(self.dims)
        twin.written = self.written
        twin.meta = copy.deepcopy(self.meta)
        twin.children = {name: child.fork() for name, child in self.children.items()}
        return twin


class MemoryEngine:
    """A tree of records in memory, gone with the process.

    Parameters
    ----------
    path : str, default ``""``
        Must be empty: a memory store has no name, and no second session can open it.
    mode : {"a", "w", "x"}
        All the same here, since a new memory store is empty.
    timeout, durability
        As every engine has them; nothing here waits, and nothing outlives the process.

    Examples
    --------
    >>> engine = MemoryEngine()
    >>> engine.write(("a",), Record("array", {"data": np.arange(3)}, {}, {}))
    >>> engine.read(("a",), "data", (slice(1, None),))
    array([1, 2])
    """

    traits: ClassVar[Traits] = Traits(
        label="Memory",
        structure="hierarchy",
        compresses=False,
        appends=True,
        hierarchical=True,
        n_dimensional=True,
        self_describing=True,
        parallel_write=False,
        cloud=False,
        opens_in=(),
    )

    def __init__(
        self, path: str = "", mode: str = "a", *, timeout: float = 0.0, durability: str = "disk"
    ) -> None:
        if path or mode in {"r", "r+"}:
            raise NotFound(
                f"there is no memory store {path!r} to open: a memory store lives in the session that made "
                "it; open 'memory://' with mode 'a' for a new one",
                key=path,
            )
        self._lock = threading.RLock()
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self._root = _Node()
        self._revision = 0
        self._closed = False

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def writable(self) -> bool:
        return True

    @property
    def layout(self) -> None:
        return None

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        with self._lock:
            found = list(_walk(self._node(prefix), prefix))
        yield from found

    def children(self, prefix: Key = ()) -> Iterator[str]:
        with self._lock:
            names = list(self._node(prefix).children)
        yield from names

    def stat(self, key: Key) -> Stat:
        with self._lock:
            node = self._node(key)
            arrays = {name: _info(name, array, node.dims) for name, array in node.arrays.items()}
            return Stat(node.kind, arrays, copy.deepcopy(node.meta))

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        with self._lock:
            node = self._node(key)
            if name not in node.arrays:
                raise refusals.no_array(key, name, node.arrays, self.url)
            array = node.arrays[name]
        return array[(*normalise_selection(selection, array.shape), ...)].copy()

    def read_whole(self, key: Key) -> Record:
        with self._lock:
            return gather(self.stat(key), functools.partial(self.read, key))

    def write(self, key: Key, record: Record) -> None:
        check_record(record)
        media.check_json(record.meta)
        arrays = {name: _frozen(array) for name, array in record.arrays.items()}
        with self._lock:
            self._check_names(key, {*arrays, *itertools.chain.from_iterable(record.dims.values())})
            node = self._make(key)
            node.kind, node.arrays, node.meta = record.kind, arrays, copy.deepcopy(dict(record.meta))
            node.dims = {name: tuple(dims) for name, dims in record.dims.items() if name in arrays}
            node.written = next(_Node._writes)
            self._commit()

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        media.check_json(meta)
        with self._lock:
            node = self._node(key)
            kept = {name: value for name, value in node.meta.items() if name not in drop}
            node.meta = {**kept, **copy.deepcopy(dict(meta))}
            self._commit()

    def move(self, old: Key, new: Key) -> None:
        refusals.refuse_root(old, self.url)
        refusals.refuse_root(new, self.url)
        with self._lock:
            node = self._node(old)
            if new[: len(old)] == old:
                raise refusals.into_itself(old, new, self.url)
            if self._find(new) is not None:
                raise refusals.something_at(new, self.url)
            self._check_names(new, set())
            del self._node(old[:-1]).children[old[-1]]
            self._make(new[:-1]).children[new[-1]] = node
            self._commit()

    def delete(self, key: Key) -> None:
        refusals.refuse_root(key, self.url)
        with self._lock:
            self._node(key)
            del self._node(key[:-1]).children[key[-1]]
            self._commit()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            self._check_open()
            outer = self._depth
            before = None if outer else self._root.fork()
            try:
                self._depth = outer + 1  # not counted up and down: Ctrl-C may come in between
                yield
                self._check_not_closed_inside()
            except BaseException:
                if before is not None:
                    self._roll_back(before)
                raise
            finally:
                self._depth = outer
            self._commit()

    def _check_not_closed_inside(self) -> None:
        if self._closed:
            raise EngineError(
                f"{self.url} was closed inside a transaction, which was undone; close it after the "
                "transaction",
                key=self.url,
            )

    def _roll_back(self, before: _Node) -> None:
        self._root = before
        while self._undo:
            self._undo.pop()()

    def _when_undone(self, action: Callable[[], None]) -> None:
        """Call something if the transaction at hand is undone."""
        if self._depth:
            self._undo.append(action)

    def revision(self) -> int:
        self._check_open()
        return self._revision

    def fingerprint(self, key: Key) -> str:
        with self._lock:
            return f"{self._node(key).written:032x}"  # counts for the whole process, and rows are no write

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        self.stat(key)
        yield from ()  # memory does not rot, and nothing else can reach it

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        self.stat(key)
        yield from ()

    def compact(self) -> int:
        self._check_open()
        return 0

    def append(self, key: Key, spec: Stat) -> MemoryAppender:
        arrays = {
            name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype))
            for name, info in spec.arrays.items()
        }
        dims = {name: info.dims for name, info in spec.arrays.items()}
        with self._lock:
            node = self._find(key)
            if node is not None and node.kind != GROUP:
                raise refusals.record_at(key, self.url)
            self.write(key, Record(spec.kind, arrays, spec.meta, dims))
            return MemoryAppender(self, key, self._node(key))

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def _commit(self) -> None:
        if self._depth == 0:
            self._revision += 1
            self._undo.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self.url} is closed, and its content gone; open a new one", key=self.url)

    def _find(self, key: Key) -> _Node | None:
        self._check_open()
        node = self._root
        for part in check(key):
            child = node.children.get(part)
            if child is None:
                return None
            node = child
        return node

    def _node(self, key: Key) -> _Node:
        node = self._find(key)
        if node is None:
            raise refusals.nothing_at(key, self.url)
        return node

    def _make(self, key: Key) -> _Node:
        node = self._root
        for part in key:
            node = node.children.setdefault(part, _Node())
        return node

    def _check_names(self, key: Key, names: set[str]) -> None:
        """Keep the names of a node's arrays, dimensions and children distinct."""
        refusals.refuse_root(key, self.url)
        for depth, part in enumerate(check(key)):
            parent = self._find(key[:depth])
            if parent is not None and part in parent.names():
                raise refusals.array_above(key, depth, self.url)
        node = self._find(key)
        if node is not None and (taken := names & node.children.keys()):
            raise refusals.child_named(key, min(taken), self.url)


class MemoryAppender:
    """Rows wait in a buffer that doubles as it fills, and show at the next flush."""

    def __init__(self, engine: MemoryEngine, key: Key, node: _Node) -> None:
        self._engine, self._key = engine, key
        self._waiting: list[Mapping[str, NDArray[Any]]] = []
        self._buffers = dict(node.arrays)
        self._length = 0
        self.growth = Growth(key, engine.url)
        self.growth.mark = node.written
        engine._when_undone(self.growth.undo)

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        self.growth.check()
        rows, _count = dtypes.as_rows(self._key, block, self._buffers)
        own = {name: dtypes.fit(rows[name], buffer.dtype, name) for name, buffer in self._buffers.items()}
        self._waiting.append(own)

    def flush(self) -> None:
        with self._engine._lock:
            self.growth.check_standing()
            if not self._waiting and self._engine._find(self._key) is None:
                return
            self._check_place()
            node = self._engine._node(self._key)  # a transaction that was undone has put another one there
            for block in self._waiting:
                self._add(block)
            self._waiting.clear()
            for name, buffer in self._buffers.items():
                node.arrays[name] = buffer[: self._length]
            self._engine._when_undone(self.growth.undo)
            self._engine._commit()

    def close(self, meta: Mapping[str, Any]) -> None:
        with self._engine._lock:
            self.growth.check_standing()
            if self.growth.closed:
                return
            self._check_place()
            self.flush()
            self._engine.update(self._key, meta)
            self.growth.closed = True

    def _check_place(self) -> None:
        node = self._engine._find(self._key)
        self.growth.check_place(node and node.written)

    def _add(self, block: Mapping[str, NDArray[Any]]) -> None:
        count = len(next(iter(block.values()), ()))
        if not count:
            return
        for name, rows in block.items():
            buffer = self._buffers[name]
            if len(buffer) < self._length + count:
                larger = np.empty(
                    (max(2 * len(buffer), self._length + count), *buffer.shape[1:]), buffer.dtype
                )
                larger[: self._length] = buffer[: self._length]
                self._buffers[name] = buffer = larger
            buffer[self._length : self._length + count] = rows
        self._length += count


def _walk(node: _Node, key: Key) -> Iterator[Key]:
    if node.kind != GROUP:
        yield key
    for name, child in node.children.items():
        yield from _walk(child, (*key, name))


def _info(name: str, array: NDArray[Any], dims: Mapping[str, tuple[str, ...]]) -> ArrayInfo:
    names = dims.get(name) or default_dims(name, array.ndim)
    return ArrayInfo(dtypes.name(array.dtype), array.shape, names, array.nbytes, None)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    dtypes.check(array.dtype)
    own = np.array(array, copy=True, order="C", subok=False)
    own.flags.writeable = False
    return own
