"""Whether a record that grows still takes rows, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datastore_lab.errors import EngineError, NotFound
from datastore_lab.keys import show

if TYPE_CHECKING:
    from datastore_lab.keys import Key


class Growth:
    """What an appender knows of its own end: closed, or undone with a transaction that its rows were part of.

    Rows belong to the transaction in which they are flushed. When that is undone they are, and the appender
    takes no more: later rows would lie where those should be, with nothing to show for the gap.

    Parameters
    ----------
    key : Key
    url : str
        The store, for the messages.

    Attributes
    ----------
    closed : bool
    mark : object
        What tells the record from any other that may come to its key.
    """

    def __init__(self, key: Key, url: str) -> None:
        self._what = f"the stream {show(key)!r} in {url}"
        self._key = key
        self._undone = False
        self.closed = False
        self.mark: object = None

    def undo(self) -> None:
        """Take note that a transaction was undone in which rows were flushed, or it was begun or closed."""
        self._undone = True

    def check_standing(self) -> None:
        """Refuse to go on if rows were undone.

        Raises
        ------
        EngineError
        """
        if self._undone:
            raise EngineError(
                f"{self._what} was written to in a transaction that was undone, and its rows with it; it "
                "takes no more, as rows would be missing in between. Look how many it has, if it is still "
                "there, and append to another key",
                key=self._key,
            )

    def check_place(self, found: object) -> None:
        """Refuse to go on if what is at the key is not the record that grew there.

        Parameters
        ----------
        found : object
            The mark of what is there, None if there is nothing.

        Raises
        ------
        NotFound, EngineError
        """
        if found is None:
            raise self.gone()
        if found != self.mark:
            raise self.replaced()

    def gone(self) -> NotFound:
        """Make the error for a record that is not there any more."""
        return NotFound(
            f"{self._what} is not there any more: it was deleted or moved while it was being written. Where "
            "it was moved to it has the rows up to the last flush; append what is to come to another key",
            key=self._key,
        )

    def replaced(self) -> EngineError:
        """Make the error for another record in the place of the one that grew."""
        return EngineError(
            f"{self._what} is another record now: the one that was being written was deleted, moved or "
            "replaced. Nothing was added to it; append to another key",
            key=self._key,
        )

    def check(self) -> None:
        """Refuse rows if the record has ended.

        Raises
        ------
        EngineError
        """
        self.check_standing()
        if self.closed:
            raise EngineError(f"{self._what} is closed; append to another key", key=self._key)
