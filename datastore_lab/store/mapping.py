"""The one mapping: keys to Python objects, over any engine, from any prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab import keys as _keys
from datastore_lab import objects
from datastore_lab.errors import EngineError, LabError, NotFound, ReadOnly
from datastore_lab.keys import Key, KeyLike
from datastore_lab.records import GROUP, RESERVED, Appender, Appends, Engine, Problem, Record, Repair, Stat
from datastore_lab.store.appending import StoreAppender, Streams
from datastore_lab.store.checking import problems, repairs
from datastore_lab.store.missing import explained
from datastore_lab.store.reading import read_record

if TYPE_CHECKING:
    import xarray


class Store(MutableMapping[KeyLike, Any]):
    """Python objects at hierarchical keys.

    Reads like a dictionary of paths. Objects come back equal and of the same type; a key that only has
    others below it gives a `Store` of those. Use `open_store` to get one.

    Parameters
    ----------
    engine : Engine
        Where the records live.
    prefix : str or sequence of str, default ``()``
        All keys are taken relative to this node.
    writable : bool, optional
        False refuses changes through this object even if the engine would take them.

    Examples
    --------
    >>> from datastore_lab import open_store
    >>> store = open_store("memory://")
    >>> store["run/gain"] = {"adc": 2.0, "unit": "V"}
    >>> store["run/gain"]
    {'adc': 2.0, 'unit': 'V'}
    >>> list(store)
    ['run/gain']
    """

    def __init__(self, engine: Engine, prefix: KeyLike = (), *, writable: bool | None = None) -> None:
        self.engine = engine
        self.prefix: Key = _keys.parse(prefix)
        self._writable = engine.writable if writable is None else writable and engine.writable
        self._release: Any = None
        self._parent: Store | None = None
        self._streams = Streams()
        self._process = os.getpid()
        self._closed = False

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of the engine; `open_store` of it gives the same data."""
        return self.engine.url

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        return self._writable

    @property
    def closed(self) -> bool:
        """Whether it was closed, or the store that it is a view of."""
        return self._closed or (self._parent is not None and self._parent.closed)

    def __repr__(self) -> str:
        where = f" at {_keys.show(self.prefix)!r}" if self.prefix else ""
        return f"<Store {self.url}{where}{'' if self.writable else ', read only'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.url.startswith("memory:"):
            raise TypeError("a memory store can't be pickled: it lives in this process only; use a file")
        from datastore_lab.store.opening import reopen

        return (reopen, (self.url, "r+" if self.writable else "r", self.prefix))

    # -- the mapping --------------------------------------------------------------------------------

    def __getitem__(self, key: KeyLike) -> Any:
        try:
            return self._get(key)
        except NotFound:
            with self._explained(key):
                raise

    def _get(self, key: KeyLike) -> Any:
        record = self.record(key)
        if record.kind == GROUP:
            return self.group(key)
        return objects.decode(objects.without_attributes(record))

    def __setitem__(self, key: KeyLike, obj: Any) -> None:
        self.put(key, obj)

    def __delitem__(self, key: KeyLike) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        try:
            self.engine.stat(self._full(key))  # type: ignore[arg-type]
        except NotFound:
            return False
        return True

    def __iter__(self) -> Iterator[str | Key]:
        return map(_keys.show, self.keys_below())

    def __len__(self) -> int:
        return sum(1 for _ in self.keys_below())

    def __eq__(self, other: object) -> bool:
        return self is other  # comparing all content, as Mapping does, would read everything

    def __hash__(self) -> int:
        return id(self)

    def get(self, key: KeyLike, default: Any = None) -> Any:
        """Give the object at a key, or `default` if there is nothing."""
        try:
            return self._get(key)
        except NotFound:
            return default

    def put(self, key: KeyLike, obj: Any, *, attrs: Mapping[str, Any] | None = None) -> None:
        """Store an object, with attributes of one's own beside it.

        Atomic, and durable when it returns. What was at the key is replaced, what is below it stays.

        Parameters
        ----------
        key : str or sequence of str
        obj : object
            Anything a codec knows: numbers, text, containers, arrays, tables, xarray objects, classes with
            the storage protocol, registered types.
        attrs : mapping of str to JSON value, optional
            Shown by every tool that opens the file. Names must not begin with ``lab_``.

        Raises
        ------
        NotStorable
            Naming the path inside the object; nothing is written.
        ReadOnly, BadKey, AlreadyExists, EngineError
        """
        full = self._for_change(key)
        beside = objects.checked_attributes(attrs or {})
        self.engine.write(full, objects.with_attributes(objects.encode(obj), beside))

    # -- records and attributes ---------------------------------------------------------------------

    def stat(self, key: KeyLike = ()) -> Stat:
        """Describe a node without reading its arrays."""
        return self.engine.stat(self._full(key))

    def attrs(self, key: KeyLike = ()) -> dict[str, Any]:
        """Give the attributes of a node that are for people."""
        return {name: value for name, value in self.stat(key).meta.items() if not name.startswith(RESERVED)}

    def update(  # type: ignore[override]
        self, key: KeyLike, attrs: Mapping[str, Any]
    ) -> None:
        """Merge into the attributes of a node, without touching its arrays.

        Unlike the method of the same name of a dictionary it changes attributes, not items.
        """
        with self._explained(key):
            self.engine.update(self._for_change(key), objects.checked_attributes(attrs))

    def record(self, key: KeyLike) -> Record:
        """Read a record as it is stored: kind, arrays, attributes and dimension names.

        All of it is of one commit, also beside a writer; of a stream that grows, the rows that were there
        when reading began.

        Raises
        ------
        EngineError
            If a writer in another process replaces the record faster than it can be read.
        """
        return read_record(self.engine, self._full(key))

    def write(self, key: KeyLike, record: Record) -> None:
        """Put a record as it is, without a codec."""
        self.engine.write(self._for_change(key), record)

    def append(self, key: KeyLike, spec: Stat) -> Appender:
        """Begin a record that grows along its first axis.

        The store stays open for as long as what is returned is in use. Rows that still wait when the store is
        closed are written then.

        Raises
        ------
        EngineError
            If the engine can't append.
        """
        full = self._for_change(key)
        if not isinstance(self.engine, Appends):
            raise EngineError(f"{self.url} can't hold growing records; use HDF5, Zarr or Arrow", key=key)
        return StoreAppender(self, self.engine.append(full, spec), self._streams)

    # -- the tree -----------------------------------------------------------------------------------

    def keys_below(self, key: KeyLike = ()) -> Iterator[Key]:
        """Yield the keys of all records at or below a node, relative to this store."""
        strip = len(self.prefix)
        try:
            for full in self.engine.keys(self._full(key)):
                yield full[strip:]
        except NotFound:
            if key == () and self.prefix:  # a view on a place where nothing has been stored yet is empty
                return
            raise

    def children(self, key: KeyLike = ()) -> Iterator[str]:
        """Yield the names of the nodes right below one node."""
        yield from self.engine.children(self._full(key))

    def group(self, key: KeyLike) -> Store:
        """Give the store of everything below a node; it need not exist yet."""
        view = Store(self.engine, self._full(key), writable=self._writable)
        view._parent, view._streams = self, self._streams
        return view

    def move(self, old: KeyLike, new: KeyLike) -> None:
        """Move a node with everything below it; `AlreadyExists` if the new name is taken."""
        with self._explained(old):
            self.engine.move(self._for_change(old), self._for_change(new))

    def delete(self, key: KeyLike) -> None:
        """Delete a node with everything below it."""
        with self._explained(key):
            self.engine.delete(self._for_change(key))

    def clear(self) -> None:
        """Delete everything in this store, and its attributes, in one commit; a record at its place stays."""
        self._refuse_read_only()
        if () not in self:  # a view on a place where nothing has been stored yet
            return
        with self.engine.transaction():
            for name in list(self.children()):
                self.delete((name,))
            stat = self.stat()
            if stat.kind == GROUP and (own := tuple(self.attrs())):
                self.engine.update(self.prefix, {}, drop=own)

    def merge_from(self, other: Store, *, overwrite: bool = False) -> int:
        """Copy everything in another store into this one, in one commit.

        Attributes of groups and empty groups too. `copy_store` does it in many commits, can be resumed, and
        compares both sides at the end.

        Parameters
        ----------
        other : Store
            May lie on another engine. Arrays in its root go to the group ``root`` where none can be here.
        overwrite : bool, default False
            Replace what is here under the same key, instead of keeping it.

        Returns
        -------
        int
            Number of records copied.
        """
        from datastore_lab.store.moving.merging import merge

        self._refuse_read_only()
        if () not in other:  # a view on a place where nothing has been stored yet
            return 0
        return merge(other, self, overwrite=overwrite)

    # -- lazily, as xarray ----------------------------------------------------------------------------

    def lazy(self, key: KeyLike) -> xarray.Dataset | xarray.DataArray:
        """Open a record as xarray, reading nothing before values are asked for.

        Returns
        -------
        xarray.DataArray or xarray.Dataset
            A DataArray for what was stored as one array, a Dataset of the record's arrays otherwise.
        """
        from datastore_lab.lazy import open_lazy

        with self._explained(key):
            return open_lazy(self, self._relative(key))

    def tree(self, key: KeyLike = ()) -> xarray.DataTree:
        """Open everything below a node as one `xarray.DataTree`, reading nothing before values are asked for.

        Nodes that hold no record are inner nodes of the tree.
        """
        from datastore_lab.lazy import open_tree

        return open_tree(self, self._relative(key))

    # -- the engine's services --------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside are one atomic, durable commit; an exception undoes them.

        In a transaction inside another one an exception that is caught between the two undoes nothing: only
        the outer one ends in a commit.
        """
        self._check_open()
        with self.engine.transaction():
            yield

    def revision(self) -> int:
        """Give a number that grows with every commit."""
        self._check_open()
        return self.engine.revision()

    def verify(self, key: KeyLike = ()) -> list[Problem]:
        """Read everything at or below a node; returns what is not as it was written."""
        return list(problems(self.engine, self._full(key)))

    def repair(self, key: KeyLike = (), *, accept: bool = False) -> list[Repair]:
        """Mend what can be mended without guessing; returns what was done, and what could not be.

        Parameters
        ----------
        key : str or sequence of str, optional
            Only what is at or below this node.
        accept : bool, default False
            Take what is readable but not as it was written as it is now, since another program changed it on
            purpose, and give it new checksums.
        """
        self._refuse_read_only()
        return list(repairs(self.engine, self._full(key), accept=accept))

    def compact(self) -> int:
        """Give back the space of what was deleted; returns bytes freed."""
        self._refuse_read_only()
        return self.engine.compact()

    def close(self) -> None:
        """Release the store; may be called twice. A view only lets go of the store it was taken from.

        Rows that wait in streams are written; if they can't be, it is closed all the same, and the error is
        raised.
        """
        if self._closed or self._parent is not None:
            return
        self._closed = True
        try:
            if os.getpid() == self._process:  # else what was opened belongs to the parent of this process
                self._streams.flush()
        finally:
            if self._release is not None:
                self._release()
            else:
                self.engine.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        try:
            self.close()
        except LabError as closing:
            if error is None:
                raise
            error.add_note(f"closing {self.url} failed as well: {closing}")  # the first error matters

    # -- inside -------------------------------------------------------------------------------------------

    def _relative(self, key: KeyLike) -> Key:
        return () if key == () else _keys.parse(key)

    def _full(self, key: KeyLike) -> Key:
        self._check_open()
        return self.prefix + self._relative(key)

    def _for_change(self, key: KeyLike) -> Key:
        self._refuse_read_only()
        return self._full(key)

    def _explained(self, key: KeyLike) -> AbstractContextManager[None]:
        return explained(self.engine, self._full(key), len(self.prefix))

    def _check_open(self) -> None:
        if self.closed:  # even where other stores of this process still share its engine
            raise EngineError(f"the store {self.url} is closed; open it again", key=self.url)

    def _refuse_read_only(self) -> None:
        self._check_open()
        if not self._writable:
            raise ReadOnly(
                f"{self.url} was opened for reading; open it with mode 'a' to change it", key=self.url
            )
