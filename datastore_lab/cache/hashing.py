"""Python values to bytes: equal content gives equal bytes in every process, different content different ones.

The encoding is typed (1, True, 1.0 and "1" differ) and free of prefixes, so that no two values run
together. Dictionaries and sets are encoded independently of their order. What can't be read completely is
refused, never skipped: a key that misses a part gives wrong results later.
"""

from __future__ import annotations

import collections
import copyreg
import enum
import functools
import struct
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import xxhash

from datastore_lab.cache import arrays, tables
from datastore_lab.cache.sources import is_local, is_standard
from datastore_lab.errors import NotStorable

Encode: TypeAlias = Callable[[Any, str], bytes]

_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    type,
)
"""What `Hasher` hands over to the walk through the code."""

_ONCE_ONLY = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FrameType)

_STATELESS = {
    "_thread.lock",
    "_thread.RLock",
    "logging.Logger",
    "logging.RootLogger",
    "weakref.ReferenceType",
    "weakref.WeakKeyDictionary",
    "weakref.WeakSet",
}
"""Objects whose state never is part of a result."""

_DEEPEST = 200

_registered: dict[type, Callable[[Any], Any]] = {}


def register_hasher(cls: type, content: Callable[[Any], Any]) -> None:
    """Say what the content of a class is, so that the cache can tell its objects apart.

    Parameters
    ----------
    cls : type
        The class; its subclasses too, unless they have an entry of their own.
    content : callable
        Gives for an object something that the cache understands (numbers, text, arrays, tables and
        containers of them) and that changes whenever the object would give other results.

    Examples
    --------
    >>> class Instrument:
    ...     def __init__(self, serial): self.serial, self.lock = serial, object()
    >>> register_hasher(Instrument, lambda instrument: instrument.serial)
    >>> forget_hasher(Instrument)
    """
    _registered[cls] = content


def forget_hasher(cls: type) -> None:
    """Undo `register_hasher`."""
    _registered.pop(cls, None)


def join(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """Put parts together such that no other parts give the same bytes."""
    pieces = [tag, b"("]
    for part in parts:
        pieces += (b"%d:" % len(part), part)
    pieces.append(b")")
    return b"".join(pieces)


def hexdigest(raw: bytes) -> str:
    """Give the 128-bit XXH3 of bytes, as 32 hexadecimal digits."""
    return str(xxhash.xxh3_128_hexdigest(raw))


class Hasher:
    """Encodes one value.

    Parameters
    ----------
    reference : callable
        Encodes a function, class or module, by code.
    """

    def __init__(self, reference: Encode) -> None:
        self.reference = reference
        self._open: list[int] = []

    def encode(self, obj: Any, path: str) -> bytes:
        """Give the bytes of a value.

        Parameters
        ----------
        obj : object
        path : str
            How a person would name it, for messages.

        Raises
        ------
        NotStorable
            Naming the path of what has no content that could be read.
        """
        atom = _ATOMS.get(type(obj))
        if atom is not None:
            return atom(obj)
        if id(obj) in self._open:  # a container that holds itself: say how far up
            return b"^%d;" % (len(self._open) - self._open.index(id(obj)))
        if len(self._open) > _DEEPEST:
            raise NotStorable(f"{path[:80]} is nested deeper than {_DEEPEST} levels", key=path)
        self._open.append(id(obj))
        try:
            return self._compound(obj, path)
        finally:
            self._open.pop()

    def _compound(self, obj: Any, path: str) -> bytes:
        container = _CONTAINERS.get(type(obj))
        if container is not None:
            return container(self, obj, path)
        for cls in type(obj).__mro__:
            if cls in _registered:
                content = self.encode(_registered[cls](obj), f"content of {path}")
                return join(b"R", [_type_name(type(obj)), content])
        special = arrays.encoder(obj) or tables.encoder(obj)
        if special is not None:
            return special(obj, path, self.encode)
        if isinstance(obj, _CODE):
            return self.reference(obj, path)
        if isinstance(obj, enum.Enum):
            value = self.encode(obj.value, f"{path}.value")
            return join(b"E", [self.reference(type(obj), path), str(obj.name).encode(), value])
        return self._instance(obj, path)

    def _instance(self, obj: Any, path: str) -> bytes:
        cls = type(obj)
        if f"{cls.__module__}.{cls.__qualname__}" in _STATELESS:
            return join(b"N", [_type_name(cls)])
        if isinstance(obj, _ONCE_ONLY):
            raise NotStorable(
                f"{path} is a {cls.__name__}, which can be read only once; pass a list or an array", key=path
            )
        if is_local(cls.__module__):
            return self._own(obj, path)
        wrapped = getattr(obj, "__wrapped__", None)
        if callable(wrapped):
            return join(b"w", [self.reference(cls, path), self.encode(wrapped, path)])
        if importable(obj):
            return self.reference(obj, path)
        if is_standard(cls.__module__):
            return self._reduced(obj, path)
        raise refusal(obj, path)

    def _reduced(self, obj: Any, path: str) -> bytes:
        """Encode an object of the standard library by what it would be rebuilt from."""
        try:
            reducer = copyreg.dispatch_table.get(type(obj))
            state = reducer(obj) if reducer is not None else obj.__reduce_ex__(2)
        except (TypeError, AttributeError, NotImplementedError) as error:
            raise refusal(obj, path) from error
        if isinstance(state, str):
            return join(b"n", [_type_name(type(obj)), state.encode()])
        make, arguments, *others = state
        rest: list[Any] = list(others)
        if len(rest) == 3 and rest[2] is not None and not isinstance(obj, collections.OrderedDict):
            rest[2] = dict(rest[2])
        rest = [list(part) if hasattr(part, "__next__") else part for part in rest]
        parts = [self.encode(part, path) for part in (make, arguments, *rest)]
        return join(b"r", [_type_name(type(obj)), *parts])

    def _own(self, obj: Any, path: str) -> bytes:
        """Encode an object of a class of the user's: the code of the class and the state."""
        cls = type(obj)
        base = self._base_content(obj, path)
        state = {name: value for name, value in _state(obj).items() if not _computed(cls, name)}
        encoded = [
            join(b"=", [name.encode(), self.encode(value, f"{path}.{name}")])
            for name, value in sorted(state.items())
        ]
        return join(b"O", [self.reference(cls, path), base, *encoded])

    def _base_content(self, obj: Any, path: str) -> bytes:
        """Encode what an object holds as the list, dict, text, array, ... that it also is."""
        for cls in type(obj).__mro__[1:]:
            if cls in _ATOMS:
                return _ATOMS[cls](cls(obj) if cls is not str else str.__str__(obj))
            if cls in _CONTAINERS:
                return _CONTAINERS[cls](self, obj, path)
            if cls.__module__ == "numpy" and cls.__qualname__ == "ndarray":
                return arrays.encode_array(obj.view(cls), path, self.encode)
            if cls is BaseException:
                return self.encode(obj.args, f"{path}.args")
            if not cls.__flags__ & 1 << 9 and cls is not object:  # (made in C: may hide its state)
                raise refusal(obj, path)
        return b""


def importable(obj: Any) -> bool:
    """Tell whether something of a library is found again by its name, so that its version says it all."""
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or is_local(module):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


def refusal(obj: Any, path: str) -> NotStorable:
    """Give the error for something that no key can hold."""
    cls = type(obj)
    if f"{cls.__module__}.{cls.__qualname__}" == "datastore_lab.store.mapping.Store":
        return NotStorable(
            f"{path} is a store, whose content may change at any time; read what is needed from it into a "
            "variable first, or leave it out with ignore_kwargs if it only receives results",
            key=path,
        )
    return NotStorable(
        f"the cache can't tell the content of {path} ({cls.__module__}.{cls.__qualname__}); pass values "
        "instead, leave it out with ignore_kwargs if results do not depend on it, or describe the class with "
        "datastore_lab.cache.register_hasher()",
        key=path,
    )


def _type_name(cls: type) -> bytes:
    return f"{cls.__module__}.{cls.__qualname__}".encode()


def _state(obj: Any) -> dict[str, Any]:
    state = dict(getattr(obj, "__dict__", {}))
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{slot}" if slot[:2] == "__" != slot[-2:] else slot
            if name not in {"__dict__", "__weakref__"} and hasattr(obj, name):
                state[name] = getattr(obj, name)
    return state


def _computed(cls: type, name: str) -> bool:
    """Tell whether an attribute only remembers what a cached property computed."""
    return any(isinstance(base.__dict__.get(name), functools.cached_property) for base in cls.__mro__)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(raw), raw)


def _float(value: float) -> bytes:
    return b"f" + struct.pack("<d", value)


def _bytes(value: bytes) -> bytes:
    raw = value if len(value) < 1024 else xxhash.xxh3_128_digest(value)
    return b"b%d:%b" % (len(value), raw)


def _buffer(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: tag + _bytes(bytes(value))


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    type(...): lambda value: b".",
    type(NotImplemented): lambda value: b"!",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%x;" % value,
    float: _float,
    complex: lambda value: b"c" + struct.pack("<dd", value.real, value.imag),
    str: _text,
    bytes: _bytes,
    bytearray: _buffer(b"B"),
}


def _sequence(tag: bytes) -> Callable[[Hasher, Any, str], bytes]:
    def encode(hasher: Hasher, obj: Any, path: str) -> bytes:
        items = enumerate(type(obj).__iter__(obj))
        return join(tag, [hasher.encode(item, f"{path}[{index}]") for index, item in items])

    return encode


def _set(tag: bytes) -> Callable[[Hasher, Any, str], bytes]:
    def encode(hasher: Hasher, obj: Any, path: str) -> bytes:
        return join(tag, sorted(hasher.encode(item, f"a member of {path}") for item in obj))

    return encode


def _mapping(hasher: Hasher, obj: Any, path: str) -> bytes:
    keyed = [(hasher.encode(name, f"a key of {path}"), name, value) for name, value in dict.items(obj)]
    keyed.sort(key=lambda entry: entry[0])
    values = [part for key, name, value in keyed for part in (key, hasher.encode(value, f"{path}[{name!r}]"))]
    return join(b"d", values)


def _proxy(hasher: Hasher, obj: Any, path: str) -> bytes:
    return join(b"p", [_mapping(hasher, dict(obj), path)])


def _view(hasher: Hasher, obj: memoryview, path: str) -> bytes:
    return join(b"v", [obj.format.encode(), repr(obj.shape).encode(), _bytes(obj.tobytes())])


def _bound(hasher: Hasher, obj: Any, path: str) -> bytes:
    return join(b"P", [hasher.encode(getattr(obj, name), path) for name in ("fget", "fset", "fdel")])


def _method(hasher: Hasher, obj: Any, path: str) -> bytes:
    return join(b"m", [type(obj).__name__.encode(), hasher.encode(obj.__func__, path)])


_CONTAINERS: dict[type, Callable[[Hasher, Any, str], bytes]] = {
    list: _sequence(b"l"),
    tuple: _sequence(b"t"),
    set: _set(b"S"),
    frozenset: _set(b"Z"),
    dict: _mapping,
    collections.OrderedDict: lambda hasher, obj, path: join(b"o", [hasher.encode(list(obj.items()), path)]),
    types.MappingProxyType: _proxy,
    memoryview: _view,
    property: _bound,
    staticmethod: _method,
    classmethod: _method,
}


def immutable(obj: Any) -> bool:
    """Tell whether an object can never change its content: then its identity is enough to know it again.

    Examples
    --------
    >>> immutable((1, "a")), immutable([1])
    (True, False)
    """
    if type(obj) in {tuple, frozenset}:
        return all(map(immutable, obj))
    return (type(obj) in _ATOMS and type(obj) is not bytearray) or arrays.is_number(obj)
