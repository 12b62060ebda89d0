"""`cached`: a function that remembers what it returned, for exactly as long as that is right."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from datastore_lab import units
from datastore_lab.cache import entries, hidden, options
from datastore_lab.cache.hint import hinting
from datastore_lab.cache.interrupts import noticing
from datastore_lab.cache.key import Call, FunctionKey, describe
from datastore_lab.cache.shelf import Shelf
from datastore_lab.errors import LabError, NotStorable, ReadOnly
from datastore_lab.store import Store

if TYPE_CHECKING:
    from datastore_lab.cache.entries import Found

P = ParamSpec("P")
R = TypeVar("R")


class _Core:
    """What a cached function and its bound methods share."""

    def __init__(
        self, function: Callable[..., Any], shelf: Shelf, keys: FunctionKey, ttl: float | None
    ) -> None:
        self.function, self.shelf, self.keys, self.ttl = function, shelf, keys, ttl
        self.counts = {"hits": 0, "misses": 0}
        self.saved = 0.0
        self._warned: set[str] = set()
        self._searched: set[str] = set()

    def find(self, call: Call) -> Found | None:
        """Give the stored result of a call."""
        found = self.shelf.find(self.keys.owner, call.key, ttl=self.ttl)
        if found is not None:
            self.counts["hits"] += 1
            self.saved += found.attrs.get("seconds", 0.0)
        return found

    def keep(self, call: Call, value: Any, attrs: dict[str, Any]) -> None:
        """Store a result, or warn why it can't be stored."""
        own = {"function": self.keys.owner, "parts": self.keys.own_parts(call), **attrs}
        if self.ttl is not None:
            own["ttl"] = self.ttl
        try:
            self.shelf.keep(self.keys.owner, call.key, value, own, code=call.code)
        except (LabError, OSError) as error:
            self._complain(error)
        finally:
            self.counts["misses"] += 1  # only now: whoever sees the number change finds the entry

    def left_out(self) -> None:
        """Say that a result is not kept, as the function was interrupted while it ran."""
        self.counts["misses"] += 1
        entries.warn(f"the result of {self.keys.owner} is returned, but not kept: it was interrupted", 6)

    def look_back(self, call: Call) -> None:
        """Warn of what the key of a call can't hold: changed arguments, and what the code reads elsewhere."""
        name = self.keys.owner
        changes = hidden.changes(call.bound, call.arguments, call.bare)
        if changes.filled and not changes.mutated:
            self.keys.know(call, changes.filled)
        for changed in changes.mutated:
            self.warn_once(
                f"{name} changes its argument {changed!r} in place, which a result from the cache does not: "
                "work on a copy"
            )
        code = call.code
        if code.digest not in self._searched:
            self._searched.add(code.digest)
            for label, kind, what in hidden.reads(code.named):
                where = "" if label == name else f" in {label}"
                if self.keys.ignore.isdisjoint(what.split(".")):
                    self.warn_once(
                        f"{name} depends on {kind} ({what}{where}), which its key does not hold; "
                        f"{hidden.advice(kind)}"
                    )

    def warn_once(self, message: str) -> None:
        """Warn of something the first time that it is met."""
        if message not in self._warned:
            self._warned.add(message)
            entries.warn(message, 6)

    def _complain(self, error: Exception) -> None:
        name = self.keys.owner
        if isinstance(error, ReadOnly):
            self.warn_once(f"results of {name} are not kept: {error}")
        elif isinstance(error, NotStorable):
            entries.warn(f"the result of {name} is returned, but not kept: {error}", 6)
        else:
            entries.warn(f"the result of {name} is returned, but could not be written: {error}", 6)


class Cached(Generic[P, R]):
    """A function that gives the stored result where nothing that matters has changed.

    Made by `cached`. A call that misses returns the function's own object; a call that hits returns an equal
    object of the same type, whose arrays can't be written to (see `cached`).
    """

    __cached_function__ = True
    __wrapped__: Callable[P, R]
    __name__: str

    def __init__(self, core: _Core, bound: tuple[Any, ...] = ()) -> None:
        functools.update_wrapper(self, core.function)
        self._core = core
        self._bound = bound
        self._awaits = inspect.iscoroutinefunction(core.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Give the stored result, or call the function and store what it returns."""
        if self._awaits:
            return cast("R", self._await(args, kwargs))
        return cast("R", self._compute(args, kwargs, force=False))

    def __get__(self, obj: Any, owner: type | None = None) -> Cached[..., R]:
        return self if obj is None else Cached(self._core, (obj,))

    def __repr__(self) -> str:
        return f"<cached {self._core.keys.owner}>"

    def why(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Say why this call would be computed: what differs from the nearest stored call.

        Returns
        -------
        str
            Such as ```g` (called by `h`) changed −1 +1; `x` same; numpy 2.4.5 → 2.4.6``.
        """
        call, core = self._call(args, kwargs), self._core
        if self.is_cached(*args, **kwargs):
            return "this call is in the cache"
        return core.shelf.why(core.keys.owner, core.keys.own_parts(call), call.code)

    def is_cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Tell whether the result of this call is stored."""
        core = self._core
        return core.shelf.has(core.keys.owner, self._call(args, kwargs).key, ttl=core.ttl)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the stored result of this call; tells whether there was one."""
        return self._core.shelf.forget(self._core.keys.owner, self._call(args, kwargs).key)

    def put(self, result: R, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a result for this call as if the function had returned it.

        Raises
        ------
        NotStorable, ReadOnly, Locked, EngineError
            If it can't be stored; unlike for a call, nothing else has been gained.
        """
        call, core = self._call(args, kwargs), self._core
        attrs = {
            "function": core.keys.owner,
            "arguments": describe(call.bound),
            "parts": core.keys.own_parts(call),
            "seconds": 0.0,
            **({} if core.ttl is None else {"ttl": core.ttl}),
        }
        core.shelf.keep(core.keys.owner, call.key, result, attrs, code=call.code)

    def force(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function whatever is stored, and store the new result."""
        if self._awaits:
            return cast("R", self._await(args, kwargs, force=True))
        return cast("R", self._compute(args, kwargs, force=True))

    def accept(self) -> int:
        """Take what is stored as results of the code as it is now, after a change that does not matter.

        For each set of arguments the newest result counts, and no longer belongs to the code that made it.

        Returns
        -------
        int
            How many results there were.

        Raises
        ------
        NotStorable
            If values that the code reads have changed too: then none of the results is the right one.
        """
        core = self._core
        return core.shelf.accept(core.keys.owner, core.keys.code(), core.keys.version)

    def stats(self) -> dict[str, Any]:
        """Give hits and misses of this session, and number and bytes of the stored results.

        Returns
        -------
        dict
            ``hits``, ``misses``, ``seconds_saved`` (read from the store in this session), ``entries``,
            ``nbytes``.
        """
        core = self._core
        found = core.shelf.ls(core.keys.owner)
        size = sum(line.nbytes for line in found)
        return {**core.counts, "seconds_saved": core.saved, "entries": len(found), "nbytes": size}

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return self._core.keys.call(self._bound + args, kwargs)

    def _compute(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, force: bool) -> Any:
        core, args = self._core, self._bound + args
        call = core.keys.call(args, kwargs)
        if not force and (found := core.find(call)) is not None:
            return found.value
        with core.shelf.turn(core.keys.owner, call.key):
            if not force and (found := core.find(call)) is not None:
                return found.value
            run = _Run(core, call)
            with hinting(), noticing() as interrupts:
                value = core.function(*args, **kwargs)
            run.done(value, interrupted=interrupts.seen)
        return value

    async def _await(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, force: bool = False) -> Any:
        core, args = self._core, self._bound + args
        call = core.keys.call(args, kwargs)
        if not force and (found := core.find(call)) is not None:
            return found.value
        async with core.shelf.turn(core.keys.owner, call.key):
            if not force and (found := core.find(call)) is not None:
                return found.value
            run = _Run(core, call)
            with hinting():
                value = await cast("Awaitable[Any]", core.function(*args, **kwargs))
            run.done(value)
        return value


class _Run:
    """One call of the function, from before it can change its arguments until its result is kept."""

    def __init__(self, core: _Core, call: Call) -> None:
        self._core, self._call = core, call
        self._about = describe(call.bound)
        self._begin = time.perf_counter()

    def done(self, value: Any, *, interrupted: bool = False) -> None:
        """Keep what the function returned, unless it was interrupted and made the best of it."""
        if interrupted:
            self._core.left_out()
            return
        attrs = {"seconds": time.perf_counter() - self._begin, "arguments": self._about}
        self._core.keep(self._call, value, attrs)
        self._core.look_back(self._call)


@overload
def cached(storage: Callable[P, R], /) -> Cached[P, R]: ...


@overload
def cached(
    storage: Store | str | os.PathLike[str] | None = None,
    ignore_kwargs: str | Iterable[str] | None = None,
    *,
    version: Any = None,
    ttl: str | float | dt.timedelta | None = None,
    deps: str | Iterable[Any] = "auto",
    copy: bool = False,
    verify: bool = True,
    lock: bool = True,
    max_size: str | int | None = None,
) -> Callable[[Callable[P, R]], Cached[P, R]]: ...


def cached(
    storage: Any = None,
    ignore_kwargs: Any = None,
    *,
    version: Any = None,
    ttl: Any = None,
    deps: Any = "auto",
    copy: bool = False,
    verify: bool = True,
    lock: bool = True,
    max_size: Any = None,
) -> Any:
    """Keep what a function returns, and give it back when it is called again.

    A stored result is used only if everything is as it was: the code of the function and of everything
    local that it calls (comments and formatting do not count), the global and closure variables that they
    read, the versions of the libraries they use, and the arguments, all by content. Otherwise the function
    is called.

    The order of a dictionary does not count, and a path counts by its name, not by the file's content. What
    a function reads from files, the clock, the environment or an unseeded generator of random numbers can't
    be part of a key; that it does so is warned about once, and so is a function that changes its arguments.

    Parameters
    ----------
    storage : Store, path or None, default None
        Where results are kept: a store, the path of a file or folder, the URL of a database, or memory for
        this session. A path is made when the first result is kept, and is open for writing only while one
        is, so that several processes can share it.
    ignore_kwargs : str or iterable of str, optional
        Parameters, or variables that the function reads, that do not matter, as ``progress`` or a logger.
    version : object, optional
        Part of the key: change it to leave all earlier results behind.
    ttl : str, number or timedelta, optional
        How old a result may get: ``"7d"``, ``"1.5 h"``, seconds.
    deps : "auto", "none" or iterable, default "auto"
        Which code and variables count besides the arguments. ``"auto"`` follows the code; a list of
        functions, values and names counts these, and the function's own code; ``"none"`` counts nothing but
        the function's name.
    copy : bool, default False
        Give arrays as copies that can be written to. Otherwise they are views that can't, mapped from the
        file where the engine allows; ``ValueError: assignment destination is read-only`` asks for
        ``copy=True``, or for ``array.copy()``. Tables are always copies.
    verify : bool, default True
        Hold a result against its checksum the first time that this process meets it.
    lock : bool, default True
        Let several processes that ask for the same result wait for the one that computes it.
    max_size : str or int, optional
        Bytes, as in ``"20 GB"``: results that were not used for longest are deleted beyond that.

    Returns
    -------
    Cached
        With the methods ``why``, ``is_cached``, ``invalidate``, ``put``, ``force``, ``accept`` and ``stats``;
        ``__wrapped__`` is the function itself.

    Raises
    ------
    NotStorable
        For generators and classes; at a call, if an argument or a variable has no content that the cache
        could read.
    ValueError, TypeError
        For options that make no sense.

    Examples
    --------
    >>> @cached
    ... def square(x):
    ...     return x * x
    >>> square(3), square.is_cached(3), square.is_cached(3.0)
    (9, True, False)
    """
    if (callable(storage) and not isinstance(storage, (Store, str, os.PathLike))) or isinstance(
        storage, (staticmethod, classmethod)
    ):
        function: Any = storage
        return cached()(function)
    switches = {"copy": copy, "verify": verify, "lock": lock}
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r}: write True or False")
    ignore = (ignore_kwargs,) if isinstance(ignore_kwargs, str) else tuple(ignore_kwargs or ())
    limit = None if max_size is None else units.parse_size(max_size)
    age = options.seconds_of(ttl)

    def decorate(function: Any) -> Cached[..., Any]:
        options.refuse_without_results(function)
        keys = FunctionKey(function, ignore, version, deps)
        return Cached(_Core(function, Shelf(storage, max_size=limit, **switches), keys, age))

    return decorate
