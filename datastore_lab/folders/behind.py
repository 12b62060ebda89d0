"""Writing one file while the next one is made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from datastore_lab.folders.threads import begin


class WriteBehind:
    """Calls a function in a thread of its own, one call after the other, at most one behind.

    A checksum or a compressor keeps one core busy, copying to the file system another: together they take
    as long as the slower of both.

    Parameters
    ----------
    write : callable
        Raises in the caller's thread what it raises, at the next call or at the end of the block.

    Examples
    --------
    >>> done = []
    >>> with WriteBehind(done.append) as write:
    ...     write(1)
    ...     write(2)
    >>> done
    [1, 2]
    """

    def __init__(self, write: Callable[..., object]) -> None:
        self._write = write
        self._pool = ThreadPoolExecutor(1, "write")
        self._last: Future[object] | None = None

    def __call__(self, *arguments: Any) -> None:
        """Wait for the call before, then begin this one."""
        self._wait()
        self._last = begin(self._pool, self._write, *arguments)

    def _wait(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None:
            self._wait()
