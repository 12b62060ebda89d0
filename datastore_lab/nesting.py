"""Records inside a record, and classes by name: what codecs share that store objects within objects.

The arrays of an inner record become arrays of the outer one, under readable names that say where they
came from; the rest of it is a JSON mapping. Classes are found again only among those that the session has
loaded itself: nothing that a file names is ever imported.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import NotStorable, Untrusted
from datastore_lab.records import Record, default_dims, dims_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGEST = 120
"""Names made from a path inside an object are cut here; the full path is in the JSON part."""

_WHOLE = "data"
"""An inner record whose only array has this name lends that array the name of the place."""


class Packer:
    """Collects the arrays of one record under names that are distinct from each other and from dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> packer = Packer()
    >>> packer.add("trace", np.arange(3))
    'trace'
    >>> packer.embed(Record("array", {"data": np.zeros(2)}, {}, {}), "trace")
    {'kind': 'array', 'arrays': {'data': 'trace~2'}}
    >>> sorted(packer.arrays)
    ['trace', 'trace~2']
    """

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.dims: dict[str, tuple[str, ...]] = {}
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def reserve(self, wanted: str, ndim: int = 0) -> str:
        """Give a free name like `wanted`, such that the default dimensions of `ndim` axes are free too."""
        stem = (wanted.encode(errors="replace").decode() or _WHOLE)[:_LONGEST]
        for number in itertools.count(self._next.get(stem, 1)):
            name = stem if number == 1 else f"{stem}~{number}"
            names = {name, *default_dims(name, ndim)}
            if not names & self._taken:
                self._next[stem] = number + 1
                self._taken |= names
                return name
        raise AssertionError("unreachable: there is always another number")

    def claim(self, names: Iterable[str]) -> None:
        """Reserve names exactly as they are; they must be free."""
        self._taken |= set(names)

    def put(self, name: str, array: NDArray[Any], dims: Iterable[str] = ()) -> None:
        """Add an array under a reserved name, over reserved dimensions."""
        self.arrays[name] = array
        if named := tuple(dims):
            self.dims[name] = named

    def add(self, wanted: str, array: NDArray[Any], dims: Iterable[str] = ()) -> str:
        """Add an array under a free name, which is returned; `dims` are reserved ones or none."""
        named = tuple(dims)
        name = self.reserve(wanted, 0 if named else array.ndim)
        self.put(name, array, named)
        return name

    def embed(self, record: Record, place: str) -> dict[str, Any]:
        """Add the arrays of an inner record and describe it as JSON, for `unpack`."""
        only = record.arrays.keys() == {_WHOLE}
        outer = {
            name: self.reserve(place if only else f"{place}.{name}", _unnamed(record, name))
            for name in record.arrays
        }
        for dim in itertools.chain.from_iterable(record.dims.values()):
            if dim not in outer:
                outer[dim] = self.reserve(f"{place}.{dim}")
        for name, array in record.arrays.items():
            self.put(outer[name], array, (outer[dim] for dim in record.dims.get(name, ())))
        described = {
            "kind": record.kind,
            "arrays": {name: outer[name] for name in record.arrays},
            "dims": {name: list(dims) for name, dims in record.dims.items()},
            "meta": dict(record.meta),
        }
        return {name: value for name, value in described.items() if value}


def unpack(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Record:
    """Give back a record that `Packer.embed` described, from the arrays of the outer one."""
    inner = {name: arrays[outer] for name, outer in described.get("arrays", {}).items()}
    dims = {name: tuple(axes) for name, axes in described.get("dims", {}).items()}
    return Record(described["kind"], inner, described.get("meta", {}), dims)


def _unnamed(record: Record, name: str) -> int:
    return 0 if record.dims.get(name) else len(dims_of(record, name))


def class_name(cls: type) -> str:
    """Name a class so that `find_class` finds it again.

    Raises
    ------
    NotStorable
        If the class can't be reached from its module, as one that was made inside a function.

    Examples
    --------
    >>> from fractions import Fraction
    >>> class_name(Fraction)
    'fractions:Fraction'
    """
    name = f"{cls.__module__}:{cls.__qualname__}"
    if _find(name) is not cls:
        raise NotStorable(
            f"the class {cls.__qualname__} can't be found again as {name}; define it at the top level of a "
            "module or of the notebook, or teach the store with register_type()",
            key=name,
        )
    return name


def find_class(name: str) -> type:
    """Find a class that the session has loaded; nothing is imported.

    Raises
    ------
    Untrusted
        If it is not loaded.
    """
    found = _find(name)
    if found is None:
        module, _, qualified = name.partition(":")
        raise Untrusted(
            f"this item is an object of {qualified} from {module}, which this session has not loaded; if you "
            f"trust it, run 'import {module}' (or define {qualified} again) and read the item again",
            key=name,
        )
    return found


def _find(name: str) -> type | None:
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = _content(found).get(part)
    return found if issubclass(type(found), type) else None


def _content(holder: Any) -> Mapping[str, Any]:
    """Give the names of a module or class. Nothing of its own is asked: a lazy module would run its code."""
    names: Mapping[str, Any] = {}
    if issubclass(type(holder), type):
        names = type.__dict__["__dict__"].__get__(holder)
    elif issubclass(type(holder), ModuleType):
        names = ModuleType.__getattribute__(holder, "__dict__")
    return names
