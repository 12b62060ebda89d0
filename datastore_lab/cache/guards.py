"""Whether everything that a function reads is still what it was, without walking through it again."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MISSING = object()
"""Stands for the value of a name that is not bound."""


class Surface(NamedTuple):
    """A value by its content, and the very functions and classes that it names, in the order of the walk."""

    digest: str
    code: tuple[Any, ...]

    def same(self, other: Surface) -> bool:
        """Tell whether another value has the same content and names the same objects."""
        return (
            self.digest == other.digest
            and len(self.code) == len(other.code)
            and all(map(operator.is_, self.code, other.code))
        )


class Rehash(NamedTuple):
    """A value that may change in place: fetched and digested again at every check."""

    fetch: Callable[[], Any]
    known: Surface
    path: str


class Guards:
    """What must still hold for a finished walk to be right, cheap to check at every call.

    Parameters
    ----------
    surface : callable
        Looks at a value without following the code that it names.
    """

    def __init__(self, surface: Callable[[Any, str], Surface]) -> None:
        self._surface = surface
        self.bindings: list[tuple[Mapping[str, Any], str, Any]] = []
        self.functions: list[tuple[types.FunctionType, Any, Any, Any]] = []
        self.sizes: list[tuple[Mapping[str, Any], int]] = []
        self.bases: list[tuple[type, tuple[type, ...]]] = []
        self.cells: list[tuple[types.CellType, Any]] = []
        self.rehash: list[Rehash] = []

    def extend(self, other: Guards) -> None:
        """Take over what must hold for a walk that is a part of this one."""
        for name in ("bindings", "functions", "sizes", "bases", "cells", "rehash"):
            getattr(self, name).extend(getattr(other, name))

    def hold(self) -> bool:
        """Tell whether nothing has changed since the walk."""
        for space, name, obj in self.bindings:
            if space.get(name, MISSING) is not obj:
                return False
        for function, code, defaults, named in self.functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not named
            ):
                return False
        return self._structures_hold() and all(
            known.same(self._surface(fetch(), path)) for fetch, known, path in self.rehash
        )

    def _structures_hold(self) -> bool:
        for cell, obj in self.cells:
            if cell_value(cell) is not obj:
                return False
        for space, size in self.sizes:
            if len(space) != size:
                return False
        return all(cls.__bases__ == bases for cls, bases in self.bases)


def cell_value(cell: types.CellType) -> Any:
    """Give the content of a closure variable, or `MISSING` where it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
