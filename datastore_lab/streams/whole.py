"""A stream that is there only when it is closed: what a copy writes, so that none is ever cut short."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab.streams import disk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.streams.rows import StreamAppender


class WholeAppender:
    """Appends to files beside the place of a stream, which are put there by `close`.

    Parameters
    ----------
    appender : StreamAppender
        To those files.
    path : str
        The place, for messages.
    publish, discard : callable
        Put the files into the place, or remove them.
    release : callable
        Called when the stream ends, in whatever way.
    """

    def __init__(
        self,
        appender: StreamAppender,
        path: str,
        publish: Callable[[], None],
        discard: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._appender, self._path = appender, path
        self._publish, self._discard, self._release = publish, discard, release
        self.closed = False

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Take rows of all arrays."""
        self._appender.extend(block)

    def flush(self) -> None:
        """Make rows durable; nobody sees them yet."""
        self._appender.flush()

    def close(self, meta: Mapping[str, Any]) -> None:
        """Finish the stream, and show it; may be tried again if the disk fails."""
        if self.closed:
            return
        self._appender.close(meta)
        if not self._appender.mine:
            return
        with disk.typed(self._path, "is whole, and can't be put into its place"):
            self._publish()
        self.closed = True
        self._release()

    def abandon(self) -> None:
        """End it as if it had never been begun."""
        if self.closed:
            return
        self.closed = True
        if not self._appender.mine:
            return
        try:
            self._appender.abandon()
            with contextlib.suppress(OSError):  # (nobody sees what is left; whoever begins again removes it)
                self._discard()
        finally:
            self._release()
