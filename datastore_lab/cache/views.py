"""Arrays that look into the memory of other ones: what one of them changes, the others show.

What comes back from a store has memory of its own. Where the array that a view looked into can be changed,
the view is made anew, so that it goes on showing what happens there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from datastore_lab.cache.guards import MISSING
from datastore_lab.cache.identity import follow, put, visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.cache.identity import Path

View: TypeAlias = tuple[str, "Path", "Path", int, tuple[int, ...]]
"""``"in"`` (an array of before) or ``"out"`` (one of afterwards), the view, the array, offset and strides."""


def views(variables: Mapping[str, Any], inputs: Mapping[str, Any], skip: Container[str] = ()) -> list[View]:
    """Find the arrays in variables that look into other ones, or into arrays among the inputs.

    Parameters
    ----------
    variables, inputs : mapping
    skip : container of str
        Variables that stay the objects that they are.

    Examples
    --------
    >>> a = np.arange(6.0).reshape(2, 3)
    >>> views({"a": a, "v": a[1, ::-1]}, {})
    [('out', ('v',), ('a',), 40, (-8,))]
    """
    own, before = _arrays(variables), _arrays(inputs)
    bases: dict[int, tuple[str, Path, NDArray[Any]]] = {}
    for kind, found in (("out", own), ("in", before)):  # (what was there before is preferred)
        for path, array in sorted(found, key=lambda item: item[1].nbytes):
            if array.flags.c_contiguous and array.nbytes:
                bases[id(_root(array))] = kind, path, array
    known = {id(array) for _, array in before}
    result: list[View] = []
    for path, array in own:
        kind, base_path, base = bases.get(id(_root(array)), ("", path, array))
        if base is not array and path[0] not in skip and id(array) not in known and _is_within(array, base):
            offset = _start(array) - _start(base)
            result.append((kind, path, base_path, offset, array.strides))
    return result


def renew(space: dict[str, Any], before: Mapping[str, Any], found: Iterable[View]) -> None:
    """Make views anew, into arrays that can be changed."""
    for kind, path, base_path, offset, strides in found:
        base, array = follow(before if kind == "in" else space, base_path), follow(space, path)
        if base is MISSING or array is MISSING or not (base.flags.writeable and base.flags.c_contiguous):
            continue
        put(space, path, np.ndarray(array.shape, array.dtype, base, offset, strides))


def _arrays(values: Mapping[str, Any]) -> list[tuple[Path, NDArray[Any]]]:
    found: list[tuple[Path, NDArray[Any]]] = []
    seen: set[int] = set()

    def note(path: Path, obj: Any) -> bool:
        if id(obj) in seen:
            return False
        seen.add(id(obj))
        if type(obj) is np.ndarray and not obj.dtype.hasobject:
            found.append((path, obj))
        return True

    for name, value in values.items():
        visit((name,), value, note)
    return found


def _root(array: NDArray[Any]) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _start(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _is_within(array: NDArray[Any], base: NDArray[Any]) -> bool:
    low, high = np.lib.array_utils.byte_bounds(array)
    return bool(array.size) and low >= _start(base) and high <= _start(base) + base.nbytes
