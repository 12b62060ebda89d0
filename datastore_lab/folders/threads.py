"""Work in threads that is done all the same when the interpreter, which is ending, starts none any more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def begin(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Begin some work in a thread of the pool, or do it here and now.

    What a store still has to write when the process ends is written after the pools have been shut.

    Examples
    --------
    >>> pool = ThreadPoolExecutor(1)
    >>> pool.shutdown()
    >>> begin(pool, divmod, 7, 2).result()
    (3, 1)
    """
    try:
        return pool.submit(work, *args, **kwargs)
    except RuntimeError:
        return _done(work, *args, **kwargs)


def _done(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(work(*args, **kwargs))
    except Exception as error:
        future.set_exception(error)
    return future
