"""The reading half: a JSON tree and arrays become a value again, and no code is run or imported."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab import media
from datastore_lab.codecs.value.leaves import BY_TAG, FACTORIES, read_numpy
from datastore_lab.errors import Corrupt, LabError, Untrusted
from datastore_lab.nesting import find_class, unpack
from datastore_lab.records import CODEC_STATE

if TYPE_CHECKING:
    from datastore_lab.records import Record


def read(record: Record, decode: Callable[[Record], Any] | None) -> Any:
    """Give the value of a record."""
    state = record.meta[CODEC_STATE]
    tree = media.from_json(state["text"]) if "text" in state else state["value"]
    try:
        return _Reader(record, decode).value(tree)
    except LabError:
        raise
    except (
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise Corrupt(f"this is not a value as it was stored: {error!r}") from error


class _Reader:
    def __init__(self, record: Record, decode: Callable[[Record], Any] | None) -> None:
        self._arrays = record.arrays
        self._decode = decode

    def value(self, tree: Any) -> Any:
        if isinstance(tree, (list, tuple)):
            return [self.value(item) for item in tree]
        if not isinstance(tree, Mapping):
            return tree
        tag = next(iter(tree)) if len(tree) == 1 else ""
        if not tag.startswith("$"):
            return {name: self.value(item) for name, item in tree.items()}
        if tag in BY_TAG:
            return BY_TAG[tag](tree[tag])
        return _READERS[tag](self, tree[tag])

    def _pairs(self, pairs: Any) -> list[tuple[Any, Any]]:
        return [(self.value(key), self.value(item)) for key, item in pairs]

    def _packed(self, state: Any) -> Any:
        array, of = self._arrays[state["array"]], state["of"]
        if of in {"bytes", "bytearray"}:
            return bytearray(array.tobytes()) if of == "bytearray" else array.tobytes()
        return _levelled(array.tolist(), state["levels"])

    def _record(self, state: Any) -> Any:
        if self._decode is None:
            raise Untrusted(f"this value holds an item of kind {state['kind']!r}; read it through a store")
        return self._decode(unpack(state, self._arrays))

    def _default(self, state: Any) -> Any:
        return collections.defaultdict(FACTORIES[state["factory"]], self._pairs(state["items"]))

    def _counter(self, pairs: Any) -> Any:
        counter: collections.Counter[Any] = collections.Counter()
        dict.update(counter, self._pairs(pairs))  # the counter's own update would add up
        return counter

    def _deque(self, state: Any) -> Any:
        return collections.deque(self.value(state["items"]), state["maxlen"])

    def _enum(self, state: Any) -> Any:
        cls = _loaded(state, lambda cls: issubclass(cls, enum.Enum), "an enum")
        if "name" in state:
            return cls.__members__[state["name"]]  # type: ignore[attr-defined]
        value = self.value(state["value"])
        if not issubclass(cls, enum.Flag) or type(value) is not int:
            raise Corrupt(f"{state['class']} is stored by a value that none of its members has")
        return cls(value)

    def _named(self, state: Any) -> Any:
        cls: Any = _loaded(
            state, lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"), "a named tuple"
        )
        fields = {name: self.value(item) for name, item in state["fields"].items()}
        _same_fields(state, cls._fields, fields)
        return tuple.__new__(cls, (fields[name] for name in cls._fields))

    def _dataclass(self, state: Any) -> Any:
        cls: Any = _loaded(state, _is_harmless, "a dataclass without __del__")
        fields = {name: self.value(item) for name, item in state["fields"].items()}
        unset = state.get("unset", [])
        _same_fields(state, [field.name for field in dataclasses.fields(cls)], [*fields, *unset])
        made = object.__new__(cls)
        for name, item in fields.items():
            object.__setattr__(made, name, item)  # works for frozen ones, and runs no __post_init__
        return made


_READERS: dict[str, Callable[[_Reader, Any], Any]] = {
    "$tuple": lambda reader, state: tuple(reader.value(state)),
    "$set": lambda reader, state: set(reader.value(state)),
    "$frozenset": lambda reader, state: frozenset(reader.value(state)),
    "$range": lambda reader, state: range(*reader.value(state)),
    "$slice": lambda reader, state: slice(*reader.value(state)),
    "$dict": lambda reader, state: dict(reader._pairs(state)),
    "$ordered_dict": lambda reader, state: collections.OrderedDict(reader._pairs(state)),
    "$numpy": lambda _, state: read_numpy(state),
    "$default_dict": _Reader._default,
    "$counter": _Reader._counter,
    "$deque": _Reader._deque,
    "$packed": _Reader._packed,
    "$record": _Reader._record,
    "$enum": _Reader._enum,
    "$namedtuple": _Reader._named,
    "$dataclass": _Reader._dataclass,
}


def _levelled(value: Any, levels: list[str]) -> Any:
    """Turn those levels of nested lists into tuples that were tuples."""
    if "tuple" not in levels:
        return value
    items = [_levelled(item, levels[1:]) for item in value]
    return tuple(items) if levels[0] == "tuple" else items


def _is_harmless(cls: type) -> bool:
    """Say whether objects may be made from a stranger's fields: ``__del__`` would act on them."""
    return dataclasses.is_dataclass(cls) and not hasattr(cls, "__del__")


def _loaded(state: Any, fits: Callable[[type], bool], what: str) -> type:
    cls = find_class(state["class"])
    if not fits(cls):
        raise Untrusted(
            f"{state['class']} is not {what} in this session, but was when it was stored", key=state["class"]
        )
    return cls


def _same_fields(state: Any, expected: Any, fields: Any) -> None:
    if set(fields) != set(expected):
        raise Untrusted(
            f"{state['class']} of this session has the fields {list(expected)}, not {list(fields)}; "
            "load the version that the item was stored with",
            key=state["class"],
        )
