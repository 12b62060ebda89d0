"""Which variables are one and the same object: equal values are not enough where one is changed later.

After ``b = a``, or ``a += 1`` on an array that another variable holds too, a change through one name is seen
through the other. What comes back from a store is a new object; here it gets its old ties again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from datastore_lab.cache.guards import MISSING
from datastore_lab.cache.hashing import immutable


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


def bind(
    space: dict[str, Any],
    before: Mapping[str, Any],
    variables: Mapping[str, Any],
    twins: Mapping[str, str],
    in_place: Iterable[str],
) -> None:
    """Bind restored values, such that all who held an object that was changed in place see the change.

    A list, dictionary, set or array is changed itself. Of anything else only the variables that stood for it
    are bound anew; a container that holds it keeps the old one.
    """
    bound = dict(variables)
    for name in in_place:
        if name not in before:
            continue
        old = before[name]
        if _changed_into(old, bound[name]):
            bound[name] = old
        else:
            bound.update({other: bound[name] for other, value in before.items() if value is old})
    space.update(bound)
    for name, other in twins.items():
        space[name] = space[other]


def _changed_into(old: Any, new: Any) -> bool:
    if type(old) is not type(new):
        return False
    if type(old) in {list, bytearray}:
        old[:] = new
    elif type(old) in {dict, set}:
        old.clear()
        old.update(new)
    elif type(old) is np.ndarray and (old.dtype, old.shape) == (new.dtype, new.shape) and old.flags.writeable:
        old[...] = new
    else:
        return False
    return True
