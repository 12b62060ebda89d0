"""Where an object keeps its state: attributes, slots, and what a base made in C holds out of sight."""

from __future__ import annotations

import copyreg
import functools
from typing import Any

from datastore_lab.cache.sources import is_local, is_standard

_WORD = object.__basicsize__ // 2
"""The bytes of a pointer; a plain object consists of two."""


def attributes(obj: Any, *, without: type | None = None) -> dict[str, Any]:
    """Give the attributes and slots of an object by name.

    Parameters
    ----------
    obj : object
    without : type, optional
        Leave out the slots of this base and of its own bases.

    Examples
    --------
    >>> class Point:
    ...     __slots__ = ("x", "__y")
    ...     def __init__(self): self.x, self.__y = 1, 2
    >>> attributes(Point())
    {'x': 1, '_Point__y': 2}
    """
    state = dict(getattr(obj, "__dict__", {}))
    hidden = without.__mro__ if without is not None else ()
    for cls in type(obj).__mro__:
        names = [] if cls in hidden else _slots(cls)
        state.update({name: getattr(obj, name) for name in names if hasattr(obj, name)})
    return state


def _slots(cls: type) -> list[str]:
    found = cls.__dict__.get("__slots__", ())
    names = (found,) if isinstance(found, str) else tuple(found)
    own = f"_{cls.__name__.lstrip('_')}"
    return [
        own + name if name[:2] == "__" != name[-2:] else name
        for name in names
        if name not in {"__dict__", "__weakref__"}
    ]


def is_computed(cls: type, name: str) -> bool:
    """Tell whether an attribute is what a cached property has been filled with."""
    return any(isinstance(base.__dict__.get(name), functools.cached_property) for base in cls.__mro__)


def hides(cls: type) -> bool:
    """Tell whether objects of a class have memory that is neither attributes nor slots.

    Examples
    --------
    >>> import random, array
    >>> class Chance(random.Random): pass
    >>> hides(Chance), hides(array.array), hides(Exception.__mro__[-1])
    (True, True, False)
    """
    known = object.__basicsize__ + _WORD * sum(map(len, map(_slots, cls.__mro__)))
    known += _WORD * ((cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0))
    return cls.__basicsize__ > known or cls.__itemsize__ > 0


def rebuilt_by(cls: type) -> type | None:
    """Find the base that says, for `copy` and `pickle`, from what its objects are made."""
    for base in cls.__mro__:
        if base is object or is_local(base.__module__):
            continue
        if {"__reduce__", "__reduce_ex__", "__getstate__"} & vars(base).keys():
            return base if is_standard(base.__module__) or hides(cls) else None
    return None


def reduced(obj: Any, base: type | None = None) -> Any:
    """Give what an object would be rebuilt from.

    Parameters
    ----------
    obj : object
    base : type, optional
        Ask this one of its classes, not the ones derived from it.

    Raises
    ------
    TypeError, AttributeError, NotImplementedError, ValueError
        If it can't be copied.
    """
    cls: Any = base or type(obj)
    reducer = copyreg.dispatch_table.get(cls)
    if reducer is not None:
        return reducer(obj)
    if base is None or "__reduce_ex__" in vars(cls):
        return cls.__reduce_ex__(obj, 4)  # (earlier protocols leave out the fold of a time)
    return cls.__reduce__(obj) if "__reduce__" in vars(cls) else vars(cls)["__getstate__"](obj)
