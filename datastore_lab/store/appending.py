"""Streams of a store: they keep it open, and their rows are on the disk when it is closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        self._open: list[Tended] = []

    def add(self, stream: Tended) -> None:
        """Take care of a stream from now on."""
        self._open.append(stream)

    def remove(self, stream: Tended) -> None:
        """Forget a stream that has ended."""
        self._open = [other for other in self._open if other is not stream]

    def flush(self) -> None:
        """Write the rows of every stream; one that fails does not keep the others from being written.

        Raises
        ------
        LabError
            The first that went wrong.
        """
        failed: LabError | None = None
        for stream in list(self._open):
            failed = stream.settle() or failed
        if failed is not None:
            failed.add_note("rows that waited in a stream when the store was closed could not be written")
            raise failed


class Tended:
    """An appender of an engine, whether rows wait in it, and what the user was told of it last."""

    def __init__(self, appender: Appender) -> None:
        self.appender = appender
        self._waits = False
        self._told = ""

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add rows."""
        with self._telling():
            self.appender.extend(block)
        self._waits = True

    def flush(self) -> None:
        """Write what waits."""
        with self._telling():
            self.appender.flush()
        self._waits = False

    def close(self, meta: Mapping[str, Any]) -> None:
        """End the stream."""
        with self._telling():
            self.appender.close(meta)
        self._waits = False

    def settle(self) -> LabError | None:
        """Write what waits, as the store is closed; gives an error that the user has not met yet."""
        if not self._waits:
            return None
        told = self._told
        try:
            self.flush()
        except LabError as error:
            return None if str(error) == told else error
        return None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except LabError as error:
            self._told = str(error)
            raise


class StoreAppender:
    """A stream of a store, which stays open for as long as the stream is in use.

    Closing the store writes the rows that wait; after that the stream takes no more.
    """

    def __init__(self, store: Store, appender: Appender, streams: Streams) -> None:
        self._store: Store | None = store
        self._stream, self._streams = Tended(appender), streams
        streams.add(self._stream)

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Add rows."""
        if self._store is not None and self._store.closed:
            raise EngineError(
                f"the store {self._store.url} was closed, and with it this stream; the rows are not added",
                key=self._store.url,
            )
        self._stream.extend(block)

    def flush(self) -> None:
        """Make everything added so far durable and visible."""
        self._stream.flush()

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush, add final attributes and end the stream; may be called twice."""
        self._stream.close(meta)
        self._streams.remove(self._stream)
        self._store = None
