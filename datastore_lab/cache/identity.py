"""Which variables are one and the same object: equal values are not enough where one is changed later.

After ``b = a``, ``b = {"part": a}``, or ``a += 1`` on an array that another variable holds too, a change
through one name is seen through the other. What comes back from a store is a new object; here it gets its old
ties again. An object inside another one is named by a path: a variable, then positions in lists and tuples,
and keys of dictionaries as text.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from datastore_lab.cache import chance
from datastore_lab.cache.guards import MISSING
from datastore_lab.cache.hashing import immutable

Step: TypeAlias = int | str
Path: TypeAlias = tuple[Step, ...]
Tie: TypeAlias = tuple[str, Path, Path]
"""What lies at the first path is what was at the second one before, as it was (``"is"``) or changed
(``"in"``), or what is at the second one afterwards (``"out"``)."""


HELD = (
    "changes the object that {0} was, which something else refers to, before it gives the name to another "
    "one: give that another name"
)


def same(
    names: Iterable[str], space: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """Tell which variables are the object that another one is, and which are still that of before.

    Parameters
    ----------
    names : iterable of str
        What a cell leaves behind.
    space : mapping
        The variables afterwards.
    inputs : mapping
        What the cell reads, as it was bound before.

    Returns
    -------
    twins : dict of str to str
        For a name the other one.
    in_place : list of str
        Inputs that the cell has changed without binding them anew.

    Examples
    --------
    >>> a, b = [1], [2]
    >>> same(["a", "c", "d"], {"a": a, "b": b, "c": a, "d": b}, {"a": a, "b": b})
    ({'c': 'a', 'd': 'b'}, ['a'])
    """
    names = list(names)
    kept = {name: value for name, value in inputs.items() if space.get(name, MISSING) is value}
    first = {id(value): name for name, value in reversed(kept.items())}
    twins, in_place = {}, []
    for name in names:
        value = space[name]
        if immutable(value):
            continue
        if (other := first.setdefault(id(value), name)) != name:
            twins[name] = other
        elif name in kept:
            in_place.append(name)
    return twins, in_place


class Origins:
    """Where every object that can change lay before a cell ran.

    Parameters
    ----------
    inputs : mapping
        What the cell reads.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._paths: dict[int, Path] = {}
        self.objects: list[Any] = []  # (so that no other object gets their numbers)
        for name, value in inputs.items():
            visit((name,), value, self._note)

    def _note(self, path: Path, obj: Any) -> bool:
        if id(obj) in self._paths:
            return False
        self._paths[id(obj)] = path
        self.objects.append(obj)
        return True

    def path(self, obj: Any) -> Path | None:
        """Give where an object lay; None for tuples, and for what was not there."""
        return self._paths.get(id(obj))

    def ties(self, variables: Mapping[str, Any], changed: Container[str]) -> list[Tie]:
        """Tell which objects inside variables lay somewhere before, or lie somewhere else too.

        Parameters
        ----------
        variables : mapping
        changed : container of str
            Inputs whose objects the cell has changed in place.

        Examples
        --------
        >>> a = [1]
        >>> d = {"part": a}
        >>> origins = Origins({"d": d})
        >>> a.append(2)
        >>> origins.ties({"d": d, "e": (a,), "f": a}, {"d"})[1:]
        [('in', ('e', 0), ('d', "'part'")), ('in', ('f',), ('d', "'part'"))]
        """
        found: list[Tie] = []
        seen: dict[int, Path] = {id(value): (name,) for name, value in variables.items()}

        def note(path: Path, obj: Any) -> bool:
            origin, other = self._paths.get(id(obj)), seen.setdefault(id(obj), path)
            if origin == path and len(path) == 1:  # (changed in place, and still bound to its name)
                return True
            if origin is not None:
                found.append(("in" if origin[0] in changed else "is", path, origin))
            elif other != path and not isinstance(
                obj, np.ndarray
            ):  # (arrays that come back can't be changed)
                found.append(("out", path, other))
            return other == path and (origin is None or origin[0] in changed)

        for name, value in variables.items():
            visit((name,), value, note)
        return found


def visit(path: Path, value: Any, note: Callable[[Path, Any], bool]) -> None:
    """Note the objects in a value that can change, with their paths, containers before what they hold."""
    waiting = [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if not immutable(value) and (isinstance(value, tuple) or note(path, value)):
            waiting += [((*path, step), item) for step, item in _items(value)][::-1]


def _items(value: Any) -> Iterable[tuple[Step, Any]]:
    if isinstance(value, dict):
        return [(repr(key), item) for key, item in value.items()]
    return enumerate(value) if isinstance(value, (list, tuple, collections.deque)) else ()


def bind(
    space: dict[str, Any],
    before: Mapping[str, Any],
    variables: Mapping[str, Any],
    twins: Mapping[str, str],
    in_place: Iterable[str],
    *,
    ties: Iterable[Tie] = (),
) -> None:
    """Bind restored values, such that all who held an object that was changed in place see the change.

    A list, deque, dictionary, set, array or generator is changed itself. Anything else is replaced wherever
    variables, and lists and dictionaries among them, hold it.
    """
    bound, ties = dict(variables), list(ties)
    old = [(kind, path, follow(before, origin)) for kind, path, origin in ties if kind != "out"]
    old += [("in", (name,), before[name]) for name in in_place if name in before]
    for kind, path, obj in sorted(old, key=lambda tie: len(tie[1]), reverse=True):
        new = follow(bound, path)
        if obj is MISSING or new is MISSING:
            continue
        if kind == "is" or _changed_into(obj, new):
            put(bound, path, obj)
        else:
            others = {name: new for name, value in before.items() if value is obj and name not in variables}
            bound.update(others)
            _replace(before.values(), obj, new)
    space.update(bound)
    for name, other in twins.items():
        space[name] = space[other]
    for kind, path, twin in ties:
        if kind == "out" and (target := follow(space, twin)) is not MISSING:
            put(space, path, target)


_HOLDERS = (list, dict, collections.deque)

_CLEARED = {dict, set, collections.OrderedDict, collections.defaultdict, collections.Counter}


def _changed_into(old: Any, new: Any) -> bool:
    if type(old) is not type(new):
        return False
    if type(old) in {list, bytearray}:
        old[:] = new
    elif type(old) is collections.deque and old.maxlen == new.maxlen:
        items = tuple(new)
        old.clear()
        old.extend(items)
    elif type(old) in _CLEARED and getattr(old, "default_factory", None) is getattr(
        new, "default_factory", None
    ):
        content = new.copy()
        old.clear()
        old.update(content)
    elif type(old) is np.ndarray and (old.dtype, old.shape) == (new.dtype, new.shape) and old.flags.writeable:
        old[...] = new
    else:
        return chance.follow(old, new)
    return True


def follow(space: Mapping[str, Any], path: Path) -> Any:
    """Give what lies at a path, or `MISSING`."""
    value: Any = space.get(str(path[0]), MISSING)
    for step in path[1:]:
        value = next((item for name, item in _items(value) if name == step), MISSING)
    return value


def put(space: dict[str, Any], path: Path, obj: Any) -> None:
    """Put an object where a path leads; the tuples on the way are made anew."""
    if len(path) == 1:
        space[str(path[0])] = obj
        return
    holder, step = follow(space, path[:-1]), path[-1]
    if isinstance(holder, dict):
        holder[next(key for key in holder if repr(key) == step)] = obj
    elif isinstance(holder, (list, collections.deque)) and isinstance(step, int):
        holder[step] = obj
    elif isinstance(holder, tuple):
        items = [obj if number == step else item for number, item in enumerate(holder)]
        made = type(holder)._make(items) if hasattr(holder, "_make") else tuple(items)
        put(space, path[:-1], made)


def _replace(values: Iterable[Any], old: Any, new: Any) -> None:
    """Put one object in the place of another one in all lists and dictionaries among values."""
    waiting, seen = [value for value in values if isinstance(value, _HOLDERS)], set()
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for key, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if item is old:
                holder[key] = new
            elif isinstance(item, _HOLDERS):
                waiting.append(item)


def held(obj: Any, references: Iterable[int]) -> bool:
    """Tell whether anything refers to an object, or to what it consists of, besides what is known.

    It is told by counting references: what is not seen here, as an attribute or a frame, counts as one.

    Parameters
    ----------
    obj : object
    references : iterable of int
        The ``id`` of what is referred to, once for each reference that is known.

    Examples
    --------
    >>> space = {"a": [[1]]}
    >>> held(space["a"], map(id, space.values()))
    False
    >>> space["b"] = space["a"][0]
    >>> held(space["a"], [id(space["a"])])
    True
    """
    known = collections.Counter(references)
    parts = {id(obj): obj}
    waiting = [obj]
    del obj
    while waiting:
        for item in _inside(waiting.pop()):
            known[id(item)] += 1
            if id(item) not in parts and not immutable(item):
                parts[id(item)] = item
                waiting.append(item)
    item = None
    return any(sys.getrefcount(parts[number]) - 2 > known[number] for number in list(parts))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple, set, frozenset, collections.deque)) else []
