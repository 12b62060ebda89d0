"""`cached`: a function that remembers what it returned, for exactly as long as that is right."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from datastore_lab.cache import entries
from datastore_lab.cache.entries import Home
from datastore_lab.cache.hashing import immutable
from datastore_lab.cache.key import Call, FunctionKey, describe
from datastore_lab.errors import LabError, NotStorable, ReadOnly
from datastore_lab.store import Store

P = ParamSpec("P")
R = TypeVar("R")

_MEMORY = 4096
"""Numbers, text and other unchangeable results that are also kept at hand, per function."""

_ABSENT = object()


class _Core:
    """What a cached function and its bound methods share."""

    def __init__(self, function: Callable[..., Any], home: Home, ignore: Iterable[str], version: Any) -> None:
        self.function = function
        self.home = home
        self.keys = FunctionKey(function, ignore, version)
        self.lock = threading.Lock()
        self.running: dict[str, _Turn] = {}
        self.at_hand: dict[str, tuple[int, Any]] = {}
        self.counts = {"hits": 0, "misses": 0}
        self.saved = 0.0
        self.warned = False

    def find(self, call: Call) -> Any:
        """Give the stored result of a call, or `_ABSENT`."""
        store = self.home.store
        known = self.at_hand.get(call.key)
        revision = store.revision()
        if known is not None and known[0] == revision:
            self.counts["hits"] += 1
            return known[1]
        found = entries.fetch(store, entries.entry_key(self.keys.owner, call.key))
        if found is None:
            return _ABSENT
        self.counts["hits"] += 1
        self.saved += found.attrs.get("seconds", 0.0)
        self._remember(call.key, revision, found.value)
        return found.value

    def keep(self, call: Call, value: Any, parts: dict[str, str], seconds: float, about: str) -> None:
        """Store a result, or warn why it can't be stored."""
        attrs = {
            "function": self.keys.owner,
            "created": entries.now(),
            "seconds": seconds,
            "arguments": about,
            "parts": parts,
        }
        try:
            entries.keep(self.home.store, entries.entry_key(self.keys.owner, call.key), value, attrs)
        except (LabError, OSError) as error:
            self._complain(error)
        finally:
            self.counts["misses"] += 1  # only now: whoever sees the number change finds the entry

    def _complain(self, error: Exception) -> None:
        name = self.keys.owner
        if isinstance(error, ReadOnly):
            if not self.warned:
                entries.warn(f"results of {name} are not kept: {error}", 6)
            self.warned = True
        elif isinstance(error, NotStorable):
            entries.warn(f"the result of {name} is returned, but not kept: {error}", 6)
        else:
            entries.warn(f"the result of {name} is returned, but could not be written: {error}", 6)

    def turn(self, key: str) -> _Turn:
        """Give the lock of a key, so that threads that ask for the same result compute it once."""
        with self.lock:
            turn = self.running.setdefault(key, _Turn())
            turn.users += 1
            return turn

    def leave(self, key: str, turn: _Turn) -> None:
        """Let go of the lock of a key."""
        with self.lock:
            turn.users -= 1
            if not turn.users:
                self.running.pop(key, None)

    def forget(self, key: str) -> bool:
        """Delete an entry; tells whether there was one."""
        self.at_hand.pop(key, None)
        place, store = entries.entry_key(self.keys.owner, key), self.home.store
        if place not in store:
            return False
        store.delete(place)
        return True

    def _remember(self, key: str, revision: int, value: Any) -> None:
        if not immutable(value):
            return
        if len(self.at_hand) >= _MEMORY:
            self.at_hand.clear()
        self.at_hand[key] = (revision, value)


class _Turn:
    """A lock, with the number of threads that hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0


class Cached(Generic[P, R]):
    """A function that gives the stored result where nothing that matters has changed.

    Made by `cached`. A call that misses returns the function's own object; a call that hits returns an equal
    object of the same type, which is the caller's own.
    """

    __cached_function__ = True
    __wrapped__: Callable[P, R]
    __name__: str

    def __init__(self, core: _Core, bound: tuple[Any, ...] = ()) -> None:
        functools.update_wrapper(self, core.function)
        self._core = core
        self._bound = bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Give the stored result, or call the function and store what it returns."""
        if inspect.iscoroutinefunction(self._core.function):
            return cast("R", self._await(args, kwargs))
        return cast("R", self._compute(self._bound + args, kwargs, force=False))

    def __get__(self, obj: Any, owner: type | None = None) -> Cached[..., R]:
        return self if obj is None else Cached(self._core, (obj,))

    def __repr__(self) -> str:
        return f"<cached {self._core.keys.owner}>"

    def why(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Say why this call would be computed: what differs from the nearest stored call."""
        call = self._call(args, kwargs)
        return entries.why(
            self._core.home.store, self._core.keys.owner, call.key, self._core.keys.parts(call)
        )

    def is_cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Tell whether the result of this call is stored."""
        key = entries.entry_key(self._core.keys.owner, self._call(args, kwargs).key)
        return key in self._core.home.store

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the stored result of this call; tells whether there was one."""
        return self._core.forget(self._call(args, kwargs).key)

    def force(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function whatever is stored, and store the new result."""
        if inspect.iscoroutinefunction(self._core.function):
            return cast("R", self._await(args, kwargs, force=True))
        return cast("R", self._compute(self._bound + args, kwargs, force=True))

    def stats(self) -> dict[str, Any]:
        """Give hits and misses of this session, and number and bytes of the stored results.

        Returns
        -------
        dict
            ``hits``, ``misses``, ``seconds_saved`` (read from the store in this session), ``entries``,
            ``nbytes``.
        """
        core = self._core
        found = [attrs for _, attrs in entries.listed(core.home.store, core.keys.owner)]
        size = sum(attrs.get("nbytes", 0) for attrs in found)
        return {**core.counts, "seconds_saved": core.saved, "entries": len(found), "nbytes": size}

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return self._core.keys.call(self._bound + args, kwargs)

    def _compute(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, force: bool) -> Any:
        core = self._core
        call, done = core.keys.call(args, kwargs), core.counts["misses"]
        if not force and (value := core.find(call)) is not _ABSENT:
            return value
        turn = core.turn(call.key)
        try:
            with turn.lock:
                if not force and done != core.counts["misses"] and (value := core.find(call)) is not _ABSENT:
                    return value
                return self._run(call, args, kwargs)
        finally:
            core.leave(call.key, turn)

    def _run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        core = self._core
        parts, about = core.keys.parts(call), describe(call.bound)  # before the function can change them
        begin = time.perf_counter()
        value = core.function(*args, **kwargs)
        core.keep(call, value, parts, time.perf_counter() - begin, about)
        return value

    async def _await(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, force: bool = False) -> Any:
        core = self._core
        args = self._bound + args
        call = core.keys.call(args, kwargs)
        if not force and (value := core.find(call)) is not _ABSENT:
            return value
        parts, about = core.keys.parts(call), describe(call.bound)
        begin = time.perf_counter()
        value = await cast("Awaitable[Any]", core.function(*args, **kwargs))
        core.keep(call, value, parts, time.perf_counter() - begin, about)
        return value


@overload
def cached(storage: Callable[P, R], /) -> Cached[P, R]: ...


@overload
def cached(
    storage: Store | str | os.PathLike[str] | None = None,
    ignore_kwargs: str | Iterable[str] | None = None,
    *,
    version: Any = None,
) -> Callable[[Callable[P, R]], Cached[P, R]]: ...


def cached(storage: Any = None, ignore_kwargs: Any = None, *, version: Any = None) -> Any:
    """Keep what a function returns, and give it back when it is called again.

    A stored result is used only if everything is as it was: the code of the function and of everything
    local that it calls (comments and formatting do not count), the global and closure variables that they
    read, the versions of the libraries they use, and the arguments, all by content. Otherwise the function
    is called.

    The order of a dictionary does not count, and a path counts by its name, not by the file's content. What
    a function reads from files, the clock, the environment or an unseeded generator of random numbers is
    not seen. Arguments that the function changes in place are not changed when a result comes from the store.

    Parameters
    ----------
    storage : Store, path or None, default None
        Where results are kept: a store, the path of an HDF5 file or a Zarr folder, or memory for this
        session.
    ignore_kwargs : str or iterable of str, optional
        Parameters, or variables that the function reads, that do not matter, as ``progress`` or a logger.
    version : object, optional
        Part of the key: change it to leave all earlier results behind.

    Returns
    -------
    Cached
        With the methods ``why``, ``is_cached``, ``invalidate``, ``force`` and ``stats``; ``__wrapped__`` is
        the function itself.

    Raises
    ------
    NotStorable
        For generators and classes; at a call, if an argument or a variable has no content that the cache
        could read.

    Examples
    --------
    >>> @cached
    ... def square(x):
    ...     return x * x
    >>> square(3), square.is_cached(3), square.is_cached(3.0)
    (9, True, False)
    """
    if callable(storage) and not isinstance(storage, (Store, str, os.PathLike)):
        return _decorate(storage, None, (), None)
    if isinstance(storage, (staticmethod, classmethod)):
        return _decorate(storage, None, (), None)
    ignore = (ignore_kwargs,) if isinstance(ignore_kwargs, str) else tuple(ignore_kwargs or ())
    return functools.partial(_decorate, storage=storage, ignore=ignore, version=version)


def _decorate(function: Any, storage: Any, ignore: Iterable[str], version: Any) -> Cached[..., Any]:
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(function, (staticmethod, classmethod)):
        raise NotStorable(
            f"put @cached below @{type(function).__name__} of {name}, next to the function", key=name
        )
    if isinstance(function, type):
        raise NotStorable(f"{name} is a class; cache a function that makes its objects", key=name)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise NotStorable(
            f"{name} is a generator, whose values are there only once; cache a function that returns them "
            "as a list or an array",
            key=name,
        )
    return Cached(_Core(function, Home(storage), ignore, version))
