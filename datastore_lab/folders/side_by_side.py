"""Doing the same to many things, several of them at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from datastore_lab.folders.threads import begin

A = TypeVar("A")
T = TypeVar("T")

_THREADS = min(os.cpu_count() or 1, 4)


def side_by_side(work: Callable[[A], T], items: Iterable[A], threads: int = _THREADS) -> Iterator[T]:
    """Do some work on each item, in threads, and yield the results in the order of the items.

    A checksum or a compressor keeps one core busy, and copying to the file system, which is the caller's
    part, another. Items are taken only when there is a thread for them soon, so that they may be large.

    Parameters
    ----------
    work : callable
        What it raises is raised here, and what has not begun by then is left out.
    items : iterable
    threads : int
        One for what keeps up with the caller; by default one for each core, up to four.

    Examples
    --------
    >>> list(side_by_side(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, "write") as pool:
        try:
            for item in items:
                if len(waiting) > threads:
                    yield waiting.popleft().result()
                waiting.append(begin(pool, work, item))
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
