"""Where records live, how they grow there, and how objects become records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records.values import Problem, Record, Repair, Selection, Span, Stat, Traits

T = TypeVar("T")


@runtime_checkable
class Engine(Protocol):
    """A place where records live. Synchronous, and safe to call from several threads.

    An engine class is constructed as ``EngineClass(path, mode, *, timeout=0.0, durability="disk")`` with the
    modes of h5py: ``r`` (must exist, read only), ``r+`` (must exist), ``a`` (create if missing), ``w``
    (start empty), ``x`` (must not exist). `timeout` is how long to wait for another writer, in seconds,
    before `Locked` names it; a `durability` of ``"process"`` leaves out the syncs, so that commits survive
    the end of the process but no power cut. A part that is not as it was written raises `Corrupt` when it is
    read, and hides nothing else. Every operation on a key that holds nothing raises `NotFound`; every change
    on a store opened with ``r`` raises `ReadOnly`. The names of a node's arrays, of its dimensions and of its
    children are distinct (a dimension may be named like its coordinate array); a write that would break
    this raises `AlreadyExists`.
    """

    traits: ClassVar[Traits]

    @property
    def url(self) -> str:
        """Where it is: opening this address again gives the same store."""
        ...

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        ...

    @property
    def layout(self) -> int | None:
        """Version of the layout in which the store was written, ``lab_layout``.

        None where there is none: in memory, in files of other programs and of versions that noted none. Of
        a store of several files it is the newest.
        """
        ...

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        """Yield the keys of all records at or below `prefix`, parents before their children."""
        ...

    def children(self, prefix: Key = ()) -> Iterator[str]:
        """Yield the names of the child nodes of one node, lazily; arrays are not children."""
        ...

    def stat(self, key: Key) -> Stat:
        """Describe a node; kind is ``"group"`` where it holds no record."""
        ...

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read one array of a record, or a part of it, as a new array of its own."""
        ...

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key: atomic and durable. A record that is there is replaced, children stay."""
        ...

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node; a value of None is stored as None.

        Attributes named in `drop` are removed before; those that are not there are passed over.
        """
        ...

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below; `AlreadyExists` if there is anything at `new`."""
        ...

    def delete(self, key: Key) -> None:
        """Delete a node with everything below it."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All changes inside are one atomic, durable commit; an exception undoes them. May be nested."""
        ...

    def revision(self) -> int:
        """Give a number that grows with every commit, so that a view can see that it is stale."""
        ...

    def fingerprint(self, key: Key) -> str:
        """Give a short text that is another one once other data is at a key; no payload is read for it.

        It covers what a view relies on: kind, names, types, shapes, dimensions and the stored sums of the
        payload; attributes may change. Of a record that was begun with `append` it is the same from the
        first row to the last and after `close`, and another one for whatever replaces it. Equal records may
        differ in it, as some engines number what they write; of what another program made, without sums,
        it tells no more than the file system does.
        """
        ...

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        """Read everything at or below `key` and yield what is not as it was written."""
        ...

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        """Mend what can be mended without guessing, and say what was done and what was not.

        Nothing that can still be read is given up. With `accept`, what is readable but not as it was written
        is taken as it is, and gets new checksums.
        """
        ...

    def compact(self) -> int:
        """Give back the space of what was deleted; returns bytes freed."""
        ...

    def close(self) -> None:
        """Release the store; may be called twice. Every other call raises `EngineError` from then on.

        A transaction that is open is undone, and its end raises `EngineError`.
        """
        ...


class Appender(Protocol):
    """A record that grows along axis 0 of all its arrays.

    Rows belong to the transaction in which they are flushed: they are durable with its commit, and when it is
    undone they are undone too. The appender then takes no more, and every call raises `EngineError`; also if
    the record was begun or closed in that transaction. Rows that only waited meanwhile are not part of it.
    """

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add rows: every array of the record, equal lengths on axis 0.

        Rows of another type, and lists, are taken if the declared type holds every value as it is; they are
        refused with `NotStorable` otherwise, and nothing was taken of that block.
        """
        ...

    def flush(self) -> None:
        """Make everything added so far durable and visible to readers; returns when it is."""
        ...

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush, merge `meta` into the attributes, and end the record; may be called twice."""
        ...


@runtime_checkable
class Appends(Protocol):
    """An optional capability of an engine: records that grow."""

    def append(self, key: Key, spec: Stat) -> Appender:
        """Begin a new record; shapes in `spec` have 0 on axis 0. `AlreadyExists` if one is there."""
        ...


@runtime_checkable
class ReadsWhole(Protocol):
    """The other optional capability: a whole record in one step, rather than array by array.

    An engine has it where one step costs less than many (one query, one look at a file), or where the many
    could see several commits. Whoever reads a record uses it, and `Engine.stat` and `Engine.read` otherwise.
    """

    def read_whole(self, key: Key) -> Record | None:
        """Read all of a record as it was at one commit, without keeping writers out.

        It gives what `Engine.stat` and a whole `Engine.read` of every array would give with no commit
        between them: the kind, the attributes as `Engine.stat` shows them, every array as a new one of its
        own, and in `dims` the dimension names of every array. All of it was checked against its sums and
        seal: `Corrupt` is raised for what is not as it was written, `NotFound` where there is nothing. A node
        without a record has the kind ``"group"`` and no arrays. Inside a transaction it sees what was changed
        there. Of a record that grows it gives the rows that were there, equally many of each array.

        None stands for a record that is better read array by array, as it is large; the caller then has to
        see to it that there was no commit in between.
        """
        ...


@runtime_checkable
class Maps(Protocol):
    """An optional capability of an engine in files: arrays that others may map into their memory."""

    def spans(self, key: Key) -> Mapping[str, Span]:
        """Tell which arrays of a record lie in one piece in a file, and where, by their names.

        Left out are those that are compressed, in chunks, in another form than in memory, or not committed
        yet. What was committed at a place stays there for as long as the file is the same one: nothing is
        written over it, whatever happens to the record. Its bytes are not held against their sums.
        """
        ...


@runtime_checkable
class Salvages(Protocol):
    """An optional capability of an engine class: files that other programs left unfinished."""

    @classmethod
    def salvage(cls, path: str, target: str) -> str | None:
        """Write, at `target`, a whole file of what a stopped program left at `path`, which stays as it is.

        Gives in words what was done and what of it is lost; None, and no file, where nothing was left
        unfinished. What the engine's own writers leave behind is no matter of this: opening a store for
        writing takes care of it.
        """
        ...


@runtime_checkable
class Locks(Protocol):
    """An optional capability of an engine on a server: locks that processes on other computers see too."""

    def lock(self, name: str) -> AbstractContextManager[bool] | None:
        """Take a lock without waiting; the context says whether it was free, and gives it back at its end.

        It also ends with the process that holds it, however that ends, but not with the store. Another
        process, or another store of this one, that asks for the same name meanwhile gets False; nothing else
        is kept from doing anything.
        None stands for a store that has no such locks, as it lies in a file.

        Raises
        ------
        EngineError
            On entering the context, if the server can't be asked.
        """
        ...


class Codec(Protocol[T]):
    """Turns objects of one family into records and back."""

    kind: str

    def encode(self, obj: T) -> Record:
        """Give the record of an object, or raise `NotStorable` that names the path inside it."""
        ...

    def decode(self, record: Record) -> T:
        """Give back an equal object of the same type. Runs no code from the record."""
        ...
