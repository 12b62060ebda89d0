"""Whether everything that a function reads is still what it was, without walking through it again."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MISSING = object()
"""Stands for the value of a name that is not bound."""


class Rehash(NamedTuple):
    """A value that may change in place: fetched and digested again at every check."""

    fetch: Callable[[], Any]
    digest: str
    path: str


class Guards:
    """What must still hold for a finished walk to be right, cheap to check at every call.

    Parameters
    ----------
    surface : callable
        Digests a value without following the code that it names.
    """

    def __init__(self, surface: Callable[[Any, str], str]) -> None:
        self._surface = surface
        self.bindings: list[tuple[Mapping[str, Any], str, Any]] = []
        self.functions: list[tuple[types.FunctionType, Any, Any, Any]] = []
        self.sizes: list[tuple[Mapping[str, Any], int]] = []
        self.cells: list[tuple[types.CellType, Any]] = []
        self.rehash: list[Rehash] = []

    def hold(self) -> bool:
        """Tell whether nothing has changed since the walk."""
        return (
            all(space.get(name, MISSING) is obj for space, name, obj in self.bindings)
            and all(
                function.__code__ is code
                and function.__defaults__ is defaults
                and function.__kwdefaults__ is named
                for function, code, defaults, named in self.functions
            )
            and all(cell_value(cell) is obj for cell, obj in self.cells)
            and all(len(space) == size for space, size in self.sizes)
            and all(self._surface(fetch(), path) == known for fetch, known, path in self.rehash)
        )


def cell_value(cell: types.CellType) -> Any:
    """Give the content of a closure variable, or `MISSING` where it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
