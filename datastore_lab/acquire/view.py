"""Samples as they lie in the ring, for as long as nobody overwrites them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datastore_lab.errors import Overrun
from datastore_lab.records import Block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from datastore_lab.acquire.cursor import Cursor


class View:
    """Samples of a ring without a copy. Made by `Cursor.view`; a context manager.

    Each access, `check` and the end of the block look whether the samples are still what was pushed. The
    arrays are read only, and are of use inside the block only.

    Examples
    --------
    >>> import numpy as np
    >>> from datastore_lab import RingBuffer
    >>> from datastore_lab.records import ArrayInfo, Block, Stat
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {"rate": 10.0})
    >>> ring = RingBuffer(spec, samples=8)
    >>> cursor = ring.cursor()
    >>> ring.push(Block(0, np.arange(5), {"x": np.arange(5.0)}))
    >>> with cursor.view() as view:
    ...     print(view.first, len(view), view.data["x"].sum())
    0 5 10.0
    >>> with cursor.view() as view:
    ...     print(len(view))
    0
    """

    def __init__(self, cursor: Cursor | None, block: Block | None, position: int) -> None:
        self.position = position
        self._cursor, self._block, self._left = cursor, block, False

    def __len__(self) -> int:
        return 0 if self._block is None else len(self._block.time)

    @property
    def first(self) -> int:
        """Sequence number of the first sample."""
        return self._checked().first

    @property
    def time(self) -> NDArray[Any]:
        """UTC by the host's clock in ns, int64 of shape (n,)."""
        return self._checked().time

    @property
    def device_time(self) -> NDArray[Any] | None:
        """The device's own clock in ns, int64 of shape (n,), where it has one."""
        return self._checked().device_time

    @property
    def data(self) -> Mapping[str, NDArray[Any]]:
        """The arrays by their names, of shapes (n, ...)."""
        return self._checked().data

    def check(self) -> None:
        """Look whether the samples are still whole.

        Raises
        ------
        Overrun
            If they were overwritten, or if the view was left.
        """
        self._checked()

    def copy(self) -> Block:
        """Copy the samples into a block of one's own.

        Raises
        ------
        Overrun
            If they were overwritten before the copy was complete.
        """
        block = self._checked()
        data = {name: rows.copy() for name, rows in block.data.items()}
        clock = None if block.device_time is None else block.device_time.copy()
        mine = Block(block.first, block.time.copy(), data, clock)
        self.check()
        return mine

    def __enter__(self) -> View:
        if self._cursor is not None:
            self._cursor.enter(self)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._left = True
        if self._cursor is not None and not self._cursor.leave(self, self.position + len(self)):
            raise self._stale() from error

    def _checked(self) -> Block:
        if self._left:
            raise Overrun("this view was left, and what it showed may be overwritten: copy() what is to stay")
        if self._block is None:
            raise Overrun("this view is empty: nothing had been pushed when it was made")
        if self._cursor is not None and not self._cursor.stands(self.position):
            raise self._stale()
        return self._block

    def _stale(self) -> Overrun:
        first = 0 if self._block is None else self._block.first
        return Overrun(
            f"the samples from {first} on were overwritten while they were looked at: take fewer at a time, "
            "a larger ring, or the policy 'block'",
            key=first,
        )
