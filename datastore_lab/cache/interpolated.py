"""`interpolated`: a function that is called only where no stored results are near."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from datastore_lab.cache import upkeep
from datastore_lab.cache.entries import warn
from datastore_lab.cache.interrupts import noticing
from datastore_lab.cache.key import Call, FunctionKey, describe, key_of
from datastore_lab.cache.points import NOTHING, Line, between, first_parameter, place_of, point
from datastore_lab.cache.shelf import Shelf
from datastore_lab.errors import LabError, NotStorable, ReadOnly
from datastore_lab.store import Store

if TYPE_CHECKING:
    from datastore_lab.cache.points import Point

P = ParamSpec("P")
R = TypeVar("R")


class _Group:
    """The points of one function, in one state of its code, for one set of the other arguments.

    They are read once. What other processes add is noticed by the revision of the store.
    """

    def __init__(self, shelf: Shelf, owner: str) -> None:
        self.shelf, self.owner = shelf, owner
        self.line = Line()
        self._revision: int | None = None
        self._lock = threading.Lock()

    def current(self) -> Line:
        """Give the points that are stored now."""
        store = self.shelf.place.reading()
        if store is not None and store.revision() != self._revision:
            with self._lock:
                self._read(store)
        return self.line

    def keep(self, call: Call, x: float, value: Any, seconds: float, parts: dict[str, str]) -> None:
        """Store a result and add it, without reading the others again."""
        new = point(x, value)
        attrs = {
            "function": self.owner,
            "x": x,
            "seconds": seconds,
            "arguments": describe(call.bound),
            "parts": parts,
        }
        with self._lock:
            before = self._now()
            self.shelf.keep(self.owner, call.key, value, attrs, code=call.code)
            self.line.add(call.key, new)
            after = self._now()
            if before is not None and before == self._revision and after == before + 1:
                self._revision = after  # (nobody else wrote in between)

    def _now(self) -> int | None:
        store = self.shelf.place.reading()
        return None if store is None else store.revision()

    def _read(self, store: Store) -> None:
        revision = store.revision()
        if revision == self._revision:
            return
        names = set(upkeep.names(store, self.owner))
        self.line.keep_only(names)
        for name in sorted(names - self.line.points.keys()):
            found = self.shelf.find(self.owner, name)
            if found is not None and isinstance(x := found.attrs.get("x"), float):
                self.line.add(name, point(x, found.value))
        self._revision = revision


class _Core:
    """What an interpolated function and its bound methods share."""

    def __init__(
        self, function: Callable[..., Any], storage: Any, max_distance: float, ignore: Iterable[str]
    ) -> None:
        self.function = function
        self.shelf = Shelf(storage)
        self.max_distance = max_distance
        self.keys = FunctionKey(function, ignore)
        self.counts = {"hits": 0, "interpolated": 0, "misses": 0}
        self._groups: dict[str, _Group] = {}
        self.told = False

    def group(self, call: Call, name: str) -> _Group:
        """Give the points that a call belongs to."""
        others = {other: digest for other, digest in call.arguments.items() if other != name}
        owner = f"{self.keys.owner} {key_of(call.code.digest, others)[:16]}"
        return self._groups.setdefault(owner, _Group(self.shelf, owner))


class Interpolated(Generic[P, R]):
    """A function whose results are interpolated between those that are stored; made by `interpolated`."""

    __cached_function__ = True
    __wrapped__: Callable[P, R]

    def __init__(self, core: _Core, bound: tuple[Any, ...] = ()) -> None:
        functools.update_wrapper(self, core.function)
        self._core = core
        self._bound = bound
        self.max_distance = core.max_distance

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Give a stored result, one between two of them, or call the function and store what it returns."""
        core, given = self._core, self._bound + args
        call = core.keys.call(given, dict(kwargs))
        name, x = self._place(call)
        group = core.group(call, name)
        placed = given or tuple(call.bound.values())
        if (found := self._look(group, call, x, placed)) is not NOTHING:
            return cast("R", found)
        with core.shelf.turn(group.owner, call.key) as waited:
            found = self._look(group, call, x, placed) if waited else NOTHING
            return cast("R", self._run(group, call, x, given, kwargs) if found is NOTHING else found)

    def __get__(self, obj: Any, owner: type | None = None) -> Interpolated[..., R]:
        return self if obj is None else Interpolated(self._core, (obj,))

    def __repr__(self) -> str:
        return f"<interpolated {self._core.keys.owner}>"

    def stats(self) -> dict[str, int]:
        """Give how many calls of this session met a point, fell between points, and were computed."""
        return dict(self._core.counts)

    def _place(self, call: Call) -> tuple[str, float]:
        name = first_parameter(self._core.function, len(self._bound))
        if name is None or name not in call.bound:
            raise NotStorable(
                f"{self._core.keys.owner} has no first parameter with a name to interpolate over",
                key=self._core.keys.owner,
            )
        x = place_of(call.bound[name])
        if x is None:
            kind = type(call.bound[name]).__name__
            raise NotStorable(
                f"{self._core.keys.owner} is interpolated over {name!r}, which must be one real number, not "
                f"{kind}; call it for each value, or use cached() for other arguments",
                key=name,
            )
        return name, x

    def _look(self, group: _Group, call: Call, x: float, args: tuple[Any, ...]) -> Any:
        core, line = self._core, group.current()
        exact = line.points.get(call.key)
        if exact is not None:
            core.counts["hits"] += 1
            return exact.given()
        near: tuple[Point, Point] | None = line.around(x, core.max_distance)
        found = NOTHING if near is None else between(*near, x, args)
        core.counts["interpolated"] += found is not NOTHING
        return found

    def _run(self, group: _Group, call: Call, x: float, args: Any, kwargs: Any) -> Any:
        core = self._core
        parts, begin = core.keys.own_parts(call), time.perf_counter()
        with noticing() as interrupts:
            value = core.function(*args, **kwargs)
        core.counts["misses"] += 1
        if interrupts.seen:
            warn(f"the result of {core.keys.owner} is returned, but not kept: it was interrupted", 5)
            return value
        try:
            group.keep(call, x, value, time.perf_counter() - begin, parts)
        except ReadOnly as error:
            if not core.told:
                core.told = True
                warn(f"results of {core.keys.owner} are not kept: {error}", 5)
        except (LabError, OSError) as error:
            warn(f"the result of {core.keys.owner} is returned, but not kept: {error}", 5)
        return value


@overload
def interpolated(storage: Callable[P, R], /) -> Interpolated[P, R]: ...


@overload
def interpolated(
    storage: Store | str | os.PathLike[str] | None = None,
    max_distance: float = 1,
    ignore_kwargs: str | Iterable[str] | None = None,
) -> Callable[[Callable[P, R]], Interpolated[P, R]]: ...


def interpolated(storage: Any = None, max_distance: float = 1, ignore_kwargs: Any = None) -> Any:
    """Interpolate linearly between stored results, over the first positional argument.

    Where the nearest stored point is at most `max_distance` away and there are points on both sides, the
    result is interpolated; otherwise, and so outside the stored points, the function is called and its result
    becomes a point. At a stored point the stored result itself is given. All other arguments, and all that
    `cached` looks at, must be equal: points made by other code are left behind.

    Int and float results give floats, complex ones complex numbers; arrays keep shape and type, those of
    whole numbers become float64. Objects with the storage protocol need a class method
    ``create_from_interpolated(cls, data_array, args, extra_args)``: it gets the interpolated array, the
    positional arguments of the call, and the second part of what ``storage_prepare`` gives for the nearer
    point. For results of any other kind, or of different shapes, the function is called. So it is for NaN and
    infinite arguments.

    Parameters
    ----------
    storage : Store, path or None, default None
        As for `cached`.
    max_distance : float, default 1
        In the unit of the first argument; 0 gives stored points only, infinity any value between two points.
    ignore_kwargs : str or iterable of str, optional
        As for `cached`.

    Returns
    -------
    Interpolated
        With the method ``stats``; ``__wrapped__`` is the function itself.

    Raises
    ------
    ValueError
        If `max_distance` is negative or NaN.
    NotStorable
        For classes, generators and ``async`` functions; at a call, if the first argument is not one real
        number, or if another one has no content that the cache could read.

    Examples
    --------
    >>> calls = []
    >>> @interpolated(max_distance=1, ignore_kwargs="calls")
    ... def response(x, gain=1):
    ...     calls.append(x)
    ...     return gain * x * x
    >>> response(0), response(2), response(1), response(0.5), response(1, gain=2), response(3)
    (0, 4, 2.0, 1.0, 2, 9)
    >>> calls
    [0, 2, 1, 3]
    """
    if callable(storage) and not isinstance(storage, (Store, str, os.PathLike)):
        return _decorate(storage, None, 1, ())
    if not max_distance >= 0:
        raise ValueError(f"max_distance={max_distance!r}: give a distance of 0 or more")
    ignore = (ignore_kwargs,) if isinstance(ignore_kwargs, str) else tuple(ignore_kwargs or ())
    return functools.partial(_decorate, storage=storage, max_distance=max_distance, ignore=ignore)


def _decorate(
    function: Any, storage: Any, max_distance: float, ignore: Iterable[str]
) -> Interpolated[..., Any]:
    name = getattr(function, "__qualname__", repr(function))
    late = (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isclass,
    )
    if any(kind(function) for kind in late):
        raise NotStorable(f"{name} returns no value to interpolate; decorate a plain function", key=name)
    return Interpolated(_Core(function, storage, float(max_distance), ignore))
