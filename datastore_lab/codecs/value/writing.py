"""The writing half: a value becomes a JSON tree and arrays."""

from __future__ import annotations

import collections
import dataclasses
import enum
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.codecs.value.leaves import (
    FACTORIES,
    LEAVES,
    LONG_BYTES,
    is_short,
    is_unicode,
    write_float,
    write_numpy,
    write_text,
)
from datastore_lab.errors import NotStorable
from datastore_lab.nesting import Packer, class_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Record

DEEPEST = 100
"""Containers may be nested this deep."""

LONG = 64
"""Regular lists and tuples of more numbers than this become an array."""

_JSON_DEEPEST = 60
"""A deeper tree is kept as JSON text, so that the limit of 100 levels in a record's meta is never met."""

_MOST_AXES = 8
_SEQUENCES: dict[type, str] = {list: "list", tuple: "tuple"}
_NUMBERS = {int: "int", float: "float", bool: "bool", complex: "complex"}

_outside: ContextVar[tuple[tuple[str, ...], frozenset[int]]] = ContextVar(
    "_outside", default=((), frozenset())
)
"""Path and containers around the object that a callback is encoding: for messages, and to find cycles."""


class Written:
    """A value as it goes into a record.

    Attributes
    ----------
    arrays : mapping of str to ndarray
    dims : mapping of str to tuple of str
    state : mapping
        The codec state: ``{"value": tree}``, or ``{"text": tree as JSON text}`` where it is very deep.
    """

    def __init__(self, value: Any, encode: Callable[[Any], Record] | None) -> None:
        self._encode = encode
        self._packer = Packer()
        self._path, around = _outside.get()
        self._base = len(self._path)
        self._around = set(around)
        tree = self._own(value)
        if tree is _NOT_OWN:
            raise self._refusal(value)
        deep = _deeper(tree, _JSON_DEEPEST)
        self.state = (
            {"text": json.dumps(media.tag_floats(tree), ensure_ascii=False)} if deep else {"value": tree}
        )
        self.arrays: Mapping[str, NDArray[Any]] = self._packer.arrays
        self.dims: Mapping[str, tuple[str, ...]] = self._packer.dims

    def _show(self) -> str:
        return "value" + "".join(self._path)

    def _name(self) -> str:
        """Name an array after its place: ``value['fits'][3]`` gives ``fits.3``."""
        parts = (
            part[1:] if part.startswith(".") else part[1:-1].strip("'\"") for part in self._path[self._base :]
        )
        return ".".join(parts) or "data"

    def _refusal(self, value: Any) -> NotStorable:
        cls = type(value)
        return NotStorable(
            f"{self._show()} is an object of {cls.__module__}.{cls.__qualname__}, which can't be stored as "
            "it is; convert it to arrays and plain values, give its class storage_prepare and "
            "storage_retrieve, or call register_type()",
            key=self._show(),
        )

    def _part(self, part: str, value: Any) -> Any:
        """Write one part of a container, which knows its own path."""
        before, self._path = self._path, (*self._path, part)
        tree = self._own(value)
        if tree is _NOT_OWN:
            tree = self._other(value)
        self._path = before
        return tree

    def _own(self, value: Any) -> Any:
        """Write what this codec is for; `_NOT_OWN` for anything else."""
        cls = type(value)
        if _is_plain(value):
            return value
        if cls is str:
            return write_text(value)
        if cls is float:
            return write_float(value)
        if cls in LEAVES:
            return self._leaf(cls, value)
        write = _CONTAINERS.get(cls)
        if write is None:
            write = _by_family(cls, outermost=len(self._path) == self._base)
        return _NOT_OWN if write is None else self._container(write, value)

    def _leaf(self, cls: type, value: Any) -> Any:
        if cls in {bytes, bytearray} and len(value) > LONG_BYTES:
            array = np.frombuffer(bytes(value), np.uint8)
            return {"$packed": {"array": self._packer.add(self._name(), array), "of": cls.__name__}}
        leaf = LEAVES[cls]
        try:
            tree = leaf.to_json(value)
        except NotStorable as error:
            raise NotStorable(f"{self._show()}: {error.message}", key=self._show()) from error
        return {leaf.tag: tree}

    def _container(self, write: Callable[[Written, Any], Any], value: Any) -> Any:
        if id(value) in self._around:
            raise NotStorable(f"{self._show()} contains itself; a cycle can't be stored", key=self._show())
        if len(self._path) > DEEPEST:
            raise NotStorable(f"{self._show():.200} is nested deeper than {DEEPEST} levels", key=self._show())
        self._around.add(id(value))
        tree = write(self, value)
        self._around.discard(id(value))
        return tree

    def _other(self, value: Any) -> Any:
        """Hand an object to the codec that is for it, and take its record in."""
        if isinstance(value, np.generic) and (described := write_numpy(value)) is not None:
            return {"$numpy": described}
        if self._encode is None:
            raise self._refusal(value)
        token = _outside.set((self._path, frozenset(self._around)))
        try:
            record = self._encode(value)
        except NotStorable as error:
            if str(error.key).startswith(self._show()):
                raise
            raise NotStorable(f"{self._show()}: {error.message}", key=self._show()) from error
        finally:
            _outside.reset(token)
        return {"$record": self._packer.embed(record, self._name())}

    def _items(self, values: Iterable[Any]) -> list[Any]:
        return [
            value if _is_plain(value) else self._part(f"[{index}]", value)
            for index, value in enumerate(values)
        ]

    def _list(self, value: list[Any]) -> Any:
        return self._packed(value) or self._items(value)

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        return self._packed(value) or {"$tuple": self._items(value)}

    def _packed(self, value: Any) -> Any:
        """Make an array of a long, regular, homogeneous sequence of numbers; None if it is not one."""
        found = _regular(value)
        if found is None:
            return None
        array, levels, of = found
        return {"$packed": {"array": self._packer.add(self._name(), array), "levels": levels, "of": of}}

    def _set(self, value: set[Any]) -> Any:
        return {"$set": self._elements(value)}

    def _frozenset(self, value: frozenset[Any]) -> Any:
        return {"$frozenset": self._elements(value)}

    def _elements(self, values: Iterable[Any]) -> list[Any]:
        """Write the elements of a set in an order that does not depend on their hashes."""
        return self._items(sorted(values, key=lambda item: (type(item).__qualname__, _shown(item))))

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        """Write a mapping as JSON where its keys are plain text, as a list of pairs otherwise."""
        if all(type(key) is str and not key.startswith("$") and is_unicode(key) for key in value):
            return {
                key: item if _is_plain(item) else self._part(f"[{key!r}]", item)
                for key, item in value.items()
            }
        return {"$dict": self._pairs(value)}

    def _pairs(self, value: Mapping[Any, Any]) -> list[Any]:
        pairs = []
        for index, (key, item) in enumerate(value.items()):
            name = _shown(key) if type(key) in {str, int, float, bool, bytes, tuple} else f"key {index}"
            pairs.append([self._part(f"[{name:.60}]", key), self._part(f"[{name:.60}]", item)])
        return pairs

    def _ordered(self, value: collections.OrderedDict[Any, Any]) -> Any:
        return {"$ordered_dict": self._pairs(value)}

    def _counter(self, value: collections.Counter[Any]) -> Any:
        return {"$counter": self._pairs(value)}

    def _default(self, value: collections.defaultdict[Any, Any]) -> Any:
        factory: Any = value.default_factory
        name = getattr(factory, "__name__", None) if factory is not None else None
        if FACTORIES.get(name, FACTORIES) is not factory:
            raise NotStorable(
                f"{self._show()} is a defaultdict whose factory {factory!r} can't be stored; use dict(value)",
                key=self._show(),
            )
        return {"$default_dict": {"factory": name, "items": self._pairs(value)}}

    def _deque(self, value: collections.deque[Any]) -> Any:
        return {"$deque": {"maxlen": value.maxlen, "items": self._items(value)}}

    def _range(self, value: range) -> Any:
        return {"$range": self._items((value.start, value.stop, value.step))}

    def _slice(self, value: slice) -> Any:
        return {"$slice": self._items((value.start, value.stop, value.step))}

    def _class(self, cls: type) -> str:
        try:
            return class_name(cls)
        except NotStorable as error:
            raise NotStorable(f"{self._show()}: {error.message}", key=self._show()) from error

    def _enum(self, value: enum.Enum) -> Any:
        try:
            name = self._class(type(value))
        except NotStorable:
            if len(self._path) == self._base:
                raise
            self._around.discard(id(value))
            return self._other(value)  # a class that can't be found by name may still be a registered one
        if isinstance(value, enum.Flag):
            return {"$enum": {"class": name, "value": self._part(".value", value.value)}}
        return {"$enum": {"class": name, "name": value.name}}

    def _named(self, value: Any) -> Any:
        self._refuse_hidden(value, set())
        fields = {name: self._part(f".{name}", item) for name, item in zip(value._fields, value, strict=True)}
        return {"$namedtuple": {"class": self._class(type(value)), "fields": fields}}

    def _dataclass(self, value: Any) -> Any:
        names = [field.name for field in dataclasses.fields(value)]
        self._refuse_hidden(value, set(names))
        fields = {
            name: self._part(f".{name}", getattr(value, name)) for name in names if hasattr(value, name)
        }
        unset = [name for name in names if name not in fields]
        state = {"class": self._class(type(value)), "fields": fields}
        return {"$dataclass": {**state, "unset": unset} if unset else state}

    def _refuse_hidden(self, value: Any, names: set[str]) -> None:
        """Refuse an object of which something would be lost, since it is in no field."""
        cls = type(value)
        if extra := sorted(vars(value).keys() - names) if hasattr(value, "__dict__") else []:
            raise NotStorable(
                f"{self._show()}.{extra[0]} is not a field of {cls.__qualname__} and would be lost; declare "
                "it, or call register_type()",
                key=f"{self._show()}.{extra[0]}",
            )

    def _dtype(self, value: np.dtype[Any]) -> Any:
        try:
            return {"$dtype": dtypes.name(value)}
        except NotStorable as error:
            raise NotStorable(f"{self._show()}: {error.message}", key=self._show()) from error


_NOT_OWN = object()

_CONTAINERS: dict[type, Callable[[Written, Any], Any]] = {
    list: Written._list,
    tuple: Written._tuple,
    set: Written._set,
    frozenset: Written._frozenset,
    dict: Written._mapping,
    collections.OrderedDict: Written._ordered,
    collections.defaultdict: Written._default,
    collections.Counter: Written._counter,
    collections.deque: Written._deque,
    range: Written._range,
    slice: Written._slice,
}


def _by_family(cls: type, *, outermost: bool) -> Callable[[Written, Any], Any] | None:
    """Find how to write classes that the session defines.

    Inside a container only members of an enum are taken at once; others go through the callback, which may
    know the class by registration, and come back here as outermost values.
    """
    if issubclass(cls, enum.Enum):
        return Written._enum
    if issubclass(cls, np.dtype):
        return Written._dtype
    if not outermost:
        return None
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return Written._named
    if dataclasses.is_dataclass(cls) and not hasattr(cls, "__del__") and _is_of_fields(cls):
        return Written._dataclass
    return None


def _is_of_fields(cls: type) -> bool:
    """Say whether objects are nothing but their attributes: those of a built-in class hold more."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def _shown(value: Any) -> str:
    """Give a text for a key or an element; Python refuses that of an integer of thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else f"a {type(value).__qualname__}"


def _is_plain(value: Any) -> bool:
    """Say whether JSON holds a value as it is, so that its path need not be known."""
    cls = type(value)
    return (
        value is None
        or cls is bool
        or (cls is float and not math.isnan(value))
        or (cls is str and value.isascii())
        or (cls is int and is_short(value))
    )


def _regular(value: Any) -> tuple[NDArray[Any], list[str], str] | None:
    """Give a nested sequence as array, with the type of each level, if it is long, regular, of one type."""
    levels, number = _first(value)
    if type(number) not in _NUMBERS:
        return None
    flat: Any = value
    shape: list[int] = []
    for level in levels:
        shape.append(len(flat) if not shape else len(flat[0]))
        if len(shape) > 1:
            if set(map(type, flat)) != {level} or set(map(len, flat)) != {shape[-1]}:
                return None
            flat = list(itertools.chain.from_iterable(flat))
    if len(flat) <= LONG or set(map(type, flat)) != {type(number)}:
        return None
    try:
        array = np.array(flat, np.dtype(type(number)))
    except OverflowError:
        return None  # an integer of more than 64 bits: the tree holds it
    return array.reshape(shape), [_SEQUENCES[level] for level in levels], _NUMBERS[type(number)]


def _first(value: Any) -> tuple[list[type], Any]:
    """Follow first elements down: the types of the levels, and what is at the bottom."""
    levels: list[type] = []
    while type(value) in _SEQUENCES and value and len(levels) < _MOST_AXES:
        levels.append(type(value))
        value = value[0]
    return levels, value


def _deeper(tree: Any, limit: int) -> bool:
    if isinstance(tree, Mapping):
        return limit == 0 or any(_deeper(item, limit - 1) for item in tree.values())
    if isinstance(tree, (list, tuple)):
        return limit == 0 or any(_deeper(item, limit - 1) for item in tree)
    return False
