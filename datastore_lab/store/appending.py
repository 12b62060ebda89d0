"""Streams of a store: they keep it open, and their rows are on the disk when it is closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import EngineError, LabError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Appender
    from datastore_lab.store.mapping import Store


class Streams:
    """The streams that are open on one engine, whichever store of this process began them.

    It knows the appenders of the engine but no store, so that the last store can go, and takes care of rows
    that still wait then.
    """

    def __init__(self) -> None:
        self._open: list[Appender] = []
        self._told: dict[int, str] = {}

    def add(self, appender: Appender) -> None:
        """Take care of a stream from now on."""
        self._open.append(appender)

    def remove(self, appender: Appender) -> None:
        """Forget a stream that has ended."""
        self._open = [other for other in self._open if other is not appender]

    def tell(self, appender: Appender, error: LabError) -> None:
        """Note that the user has been told of an error, so that it is not raised once more at the end."""
        self._told[id(appender)] = str(error)

    def flush(self) -> None:
        """Write the rows of every stream; one that fails does not keep the others from being written.

        Raises
        ------
        LabError
            The first that went wrong.
        """
        failed: LabError | None = None
        for appender in list(self._open):
            try:
                appender.flush()
            except LabError as error:
                if self._told.get(id(appender)) != str(error):
                    failed = failed or error
        if failed is not None:
            failed.add_note("rows that waited in a stream when the store was closed could not be written")
            raise failed


class StoreAppender:
    """A stream of a store, which stays open for as long as the stream is in use.

    Closing the store writes the rows that wait; after that the stream takes no more.
    """

    def __init__(self, store: Store, appender: Appender, streams: Streams) -> None:
        self._store: Store | None = store
        self._appender, self._streams = appender, streams
        streams.add(appender)

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add rows."""
        if self._store is not None and self._store.closed:
            raise EngineError(
                f"the store {self._store.url} was closed, and with it this stream; the rows are not added",
                key=self._store.url,
            )
        self._appender.extend(block)

    def flush(self) -> None:
        """Make everything added so far durable and visible."""
        try:
            self._appender.flush()
        except LabError as error:
            self._streams.tell(self._appender, error)
            raise

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush, add final attributes and end the stream; may be called twice."""
        self._appender.close(meta)
        self._streams.remove(self._appender)
        self._store = None
