"""What every engine that keeps a folder does alike: one change is one commit of the redo log."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from datastore_lab.keys import Key, check

if TYPE_CHECKING:
    from datastore_lab.folders.session import Session
    from datastore_lab.records import Growth, Record, Stat


class Staging(Protocol):
    """Stages the changes of a tree; a key was checked before."""

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key."""
        ...

    def begin(self, key: Key, spec: Stat) -> None:
        """Put an empty record that will grow."""
        ...

    def update(self, key: Key, meta: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node."""
        ...

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        ...

    def delete(self, key: Key) -> None:
        """Delete a node with everything below."""
        ...


class Growing(Protocol):
    """An appender."""

    growth: Growth


C = TypeVar("C", bound=Staging)
A = TypeVar("A", bound=Growing)


class FolderEngine(Generic[C, A]):
    """The changes of an engine, each staged and committed; reading is the engine's own.

    Parameters
    ----------
    session : Session
    changes : Staging
    appender : callable
        Makes, of the engine, a key and a description, what adds rows to a record that was begun.
    """

    def __init__(self, session: Session, changes: C, appender: Callable[[Any, Key, Stat], A]) -> None:
        self._session = session
        self._changes = changes
        self._appender = appender
        self._streams: weakref.WeakValueDictionary[Key, A] = weakref.WeakValueDictionary()

    @property
    def url(self) -> str:
        """The folder."""
        return self._session.root

    @property
    def writable(self) -> bool:
        """Whether changes are accepted."""
        return self._session.writable

    def revision(self) -> int:
        """Give the number of the last commit."""
        self._session.check_open()
        return self._session.revision()

    def write(self, key: Key, record: Record) -> None:
        """Put a record at a key."""
        with self._session.change():
            self._changes.write(check(key), record)
            self._streams.pop(check(key), None)  # its rows have no place any more

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node."""
        with self._session.change():
            self._changes.update(check(key), meta, drop)

    def move(self, old: Key, new: Key) -> None:
        """Move a node with everything below."""
        with self._session.change():
            self._changes.move(check(old), check(new))

    def delete(self, key: Key) -> None:
        """Delete a node with everything below."""
        with self._session.change():
            self._changes.delete(check(key))

    def append(self, key: Key, spec: Stat) -> A:
        """Begin a record that grows."""
        with self._session.lock:
            with self._session.change():
                self._changes.begin(check(key), spec)
                self._streams[check(key)] = appender = self._appender(self, check(key), spec)
            self._session.when_undone(appender.growth.undo)
        return appender

    def transaction(self) -> AbstractContextManager[None]:
        """Make one commit of all changes in a block."""
        return self._session.transaction()
