"""Dependencies that the user names, instead of all that a function reaches."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from datastore_lab.cache import names, sources
from datastore_lab.cache.guards import MISSING, cell_value
from datastore_lab.cache.hashing import hexdigest

if TYPE_CHECKING:
    from datastore_lab.cache.walk import Walk

_WORDS = ("auto", "none")


def checked(deps: str | Iterable[Any]) -> str | tuple[Any, ...]:
    """Hold what was given as `deps` against what it may be.

    Raises
    ------
    ValueError, TypeError
    """
    if isinstance(deps, str):
        if deps not in _WORDS:
            raise ValueError(f"deps={deps!r}: write 'auto', 'none', or a list such as deps=[{deps!r}]")
        return deps
    if not isinstance(deps, Iterable) or inspect.ismodule(deps):
        raise TypeError(f"deps={deps!r}: write 'auto', 'none', or a list of functions, values and names")
    return tuple(deps)


def parts(walk: Walk, function: Callable[..., Any], deps: str | tuple[Any, ...]) -> dict[str, str]:
    """Digest a function without what it reaches, and what was named, with all that this reaches.

    Raises
    ------
    ValueError
        For a name that the function can't see.
    """
    inner = inspect.unwrap(function)
    scope = _Scope(inner, deps)
    for name in scope.wanted:
        if scope.get(name, MISSING) is MISSING and not hasattr(builtins, name):
            raise ValueError(f"deps names {name!r}, but {function!r} can see no variable of that name")
    walk.reads(dict.fromkeys(scope.wanted, names.WHOLE), scope)
    found = dict(walk.finish())
    found["what deps names"] = found.pop("names in this cell")
    if code := getattr(inner, "__code__", None):
        walk.guards.functions.append((cast("Any", inner), code, inner.__defaults__, inner.__kwdefaults__))
        text = sources.form(code).text.encode("utf-8", "surrogatepass")
        found["code of the function itself"] = hexdigest(text)
    return found


class _Scope(Mapping[str, Any]):
    """What a function sees by name, and the objects that were named, under names of their own."""

    def __init__(self, function: Any, deps: str | tuple[Any, ...]) -> None:
        code = getattr(function, "__code__", None)
        free = () if code is None else code.co_freevars
        self._cells = dict(zip(free, getattr(function, "__closure__", None) or (), strict=True))
        self._globals = getattr(function, "__globals__", {})
        self._given = {f"dependency {n}": dep for n, dep in enumerate(deps) if not isinstance(dep, str)}
        self.wanted = [dep if isinstance(dep, str) else f"dependency {n}" for n, dep in enumerate(deps)]

    def __getitem__(self, name: str) -> Any:
        if name in self._given:
            return self._given[name]
        if name in self._cells and (value := cell_value(self._cells[name])) is not MISSING:
            return value
        return self._globals[name]

    def __iter__(self) -> Iterator[str]:
        yield from {**self._globals, **self._cells, **self._given}

    def __len__(self) -> int:
        return sum(1 for _ in self)
