"""Records in a Zarr v3 hierarchy in an object store, such as S3: read, written and deleted one at a time.

Each record is written data first and metadata last, so that a reader sees all of it or nothing. What needs
more than one object to change at once is refused until there is a way: several changes in one transaction,
moving, growing streams, and locks. Two who write *different* records do not get in each other's way; of two
who write the same one at the same time, the sums tell if parts of both are mixed. Replacing a record is not
atomic either: a reader may meanwhile be told that it is damaged, and must be told so if it was interrupted.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import obstore.store

from datastore_lab.engines.zarr.engine import ZarrEngine
from datastore_lab.engines.zarr.meta import METADATA
from datastore_lab.engines.zarr.objects import ObjectChanges, ObjectPlace, network
from datastore_lab.engines.zarr.opening import check_layout, layout_of
from datastore_lab.engines.zarr.read import read_array
from datastore_lab.engines.zarr.repair import mend
from datastore_lab.engines.zarr.tree import Tree
from datastore_lab.engines.zarr.verify import Finding, findings
from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, Foreign, NotFound, ReadOnly
from datastore_lab.keys import Key, check
from datastore_lab.records import Problem, Record, Repair, Selection, Stat, Traits, check_durability, refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.records import Appender

_LATER = "object stores can't change several objects at once, and have no locks; that is not available yet"


class S3Engine:
    """A tree of records in an object store, in Zarr's format of version 3.

    Parameters
    ----------
    path : str
        ``"bucket/prefix"``, or the same after ``s3://``. Endpoint, region and credentials are those of the
        environment, as for the tools of AWS: ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID`` and
        so on; ``AWS_ALLOW_HTTP=true`` for a server of one's own without TLS.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py.
    timeout : float, default 0.0
        Only 0.0: there are no locks to wait for.
    durability : {"disk", "process"}
        An object is durable as soon as it is written; both are the same.
    store : obstore store, optional
        Used instead of the one that `path` names.

    Examples
    --------
    >>> import numpy as np
    >>> from obstore.store import MemoryStore
    >>> engine = S3Engine("bucket/data.zarr", "w", store=MemoryStore())
    >>> engine.write(("a",), Record("array", {"data": np.arange(3)}, {"unit": "V"}, {}))
    >>> engine.read(("a",), "data", (slice(1, None),))
    array([1, 2])
    """

    traits: ClassVar[Traits] = ZarrEngine.traits._replace(label="Zarr on S3", appends=False)

    def __init__(
        self,
        path: str,
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
        store: Any = None,
    ) -> None:
        check_durability(durability)
        if mode not in {"r", "r+", "a", "w", "x"}:
            raise EngineError(f"{mode!r} is no mode; take one of 'r', 'r+', 'a', 'w', 'x'", key=mode)
        bucket, _, prefix = path.removeprefix("s3://").strip("/").partition("/")
        self._url = f"s3://{bucket}/{prefix}".rstrip("/")
        if timeout:
            self._refuse("waiting for another writer")
        self._mode = mode
        self._lock = threading.RLock()
        self._depth, self._closed = 0, False
        self._waiting: Callable[[], None] | None = None
        self._place = ObjectPlace(_connect(bucket, prefix, self._url) if store is None else store, self._url)
        self._tree = Tree(self._place)
        self._changes = ObjectChanges(self._tree)
        if self._is_new() or mode == "w":
            self._changes.start()

    def _is_new(self) -> bool:
        """Refuse a place that is no store or does not suit the mode; True if the store is to be made."""
        try:
            doc = self._tree.doc(())
        except Corrupt:
            if self._mode == "w":
                raise
            return False
        if doc is None:
            return self._has_no_root()
        if self._mode == "x":
            raise AlreadyExists(f"{self._url!r} exists already; open it with mode 'a'", key=self._url)
        if doc["node_type"] == "array":
            raise Foreign(f"{self._url!r} is a single Zarr array; open the prefix around it", key=self._url)
        check_layout(doc["attributes"], self._url)
        return False

    def _has_no_root(self) -> bool:
        if self._mode in {"r", "r+"}:
            raise NotFound(f"there is no store at {self._url!r}; mode 'a' makes one", key=self._url)
        if next(iter(self._place.names(())), None) is not None:
            raise Foreign(
                f"{self._url!r} holds objects but no {METADATA}; choose another prefix", key=self._url
            )
        return True

    # -- what it is --------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self._url

    @property
    def writable(self) -> bool:
        return self._mode != "r"

    @property
    def layout(self) -> int | None:
        self._check_open()
        return layout_of(self._tree)

    def revision(self) -> int:
        return self._changes.revision()

    # -- reading -----------------------------------------------------------------------------------

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        self._check_open()
        yield from self._tree.keys(check(prefix))

    def children(self, prefix: Key = ()) -> Iterator[str]:
        self._check_open()
        parts, names = self._tree.candidates(check(prefix))
        for name in names:
            child = self._tree.child_name(parts, name)
            if child is not None:
                yield child

    def stat(self, key: Key) -> Stat:
        self._check_open()
        return self._tree.stat(check(key))

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        self._check_open()
        return read_array(self._tree, check(key), name, selection)

    def fingerprint(self, key: Key) -> str:
        self._check_open()
        return self._tree.fingerprint(check(key))

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for finding in self._findings(check(key)):
            yield finding.problem

    def _findings(self, key: Key) -> Iterator[Finding]:
        self._check_open()
        for found in [at for at, _ in self._tree.nodes(key)]:
            yield from findings(self._tree, found)

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        self._check_writable()
        for finding in list(self._findings(check(key))):
            with self._lock:
                yield mend(self._changes, finding, accept=accept)

    # -- changes -----------------------------------------------------------------------------------

    def write(self, key: Key, record: Record) -> None:
        self._change(lambda: self._changes.plan(check(key), record))

    def update(self, key: Key, meta: Mapping[str, Any]) -> None:
        key = check(key)
        self._change(lambda: self._changes.plan_update(key, meta))

    def delete(self, key: Key) -> None:
        key = check(key)
        self._change(lambda: self._changes.plan_delete(key))

    def move(self, old: Key, new: Key) -> NoReturn:
        self._check_writable()
        for key in (old, new):
            refusals.refuse_root(check(key), self._url)
        self._refuse("moving")

    def append(self, key: Key, spec: Stat) -> Appender:
        self._check_writable()
        self._refuse("appending to a growing stream")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One change inside is done when the block ends, and not before; more than one is refused."""
        with self._lock:
            self._check_writable()
            self._depth += 1
            try:
                yield
                if self._depth == 1 and self._waiting is not None:
                    self._do(self._waiting)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._waiting = None

    def _change(self, plan: Callable[[], Callable[[], None]]) -> None:
        """Check a change, and do it; in a transaction it waits for the end."""
        with self._lock:
            self._check_writable()
            if self._waiting is not None:
                self._refuse("a transaction of more than one change")
            work = plan()
            if self._depth:
                self._waiting = work
            else:
                self._do(work)

    def _do(self, work: Callable[[], None]) -> None:
        self._tree.node(())  # the revision stands there: better to find it damaged before than after
        work()
        self._changes.count()

    def compact(self) -> int:
        self._check_writable()
        return 0

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self._url!r} is closed; open it again", key=self._url)

    def _check_writable(self) -> None:
        self._check_open()
        if not self.writable:
            raise ReadOnly(f"{self._url!r} is open for reading only; open it with mode 'a'", key=self._url)

    def _refuse(self, what: str) -> NoReturn:
        raise EngineError(f"{self._url!r}: {what} is refused, as {_LATER}", key=self._url)


def _connect(bucket: str, prefix: str, url: str) -> Any:
    if not bucket:
        raise EngineError(f"{url!r} names no bucket; write s3://bucket/prefix", key=url)
    with network(url):
        return obstore.store.S3Store(bucket, prefix=prefix or None)
