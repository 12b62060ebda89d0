"""Python values to bytes: equal content gives equal bytes in every process, different content different ones.

The encoding is typed (1, True, 1.0 and "1" differ) and free of prefixes, so that no two values run
together. Dictionaries and sets are encoded independently of their order. What can't be read completely is
refused, never skipped: a key that misses a part gives wrong results later.
"""

from __future__ import annotations

import collections
import contextvars
import enum
import functools
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from datastore_lab.cache import arrays, state, tables
from datastore_lab.cache.atoms import ATOMS, hexdigest, join, of_bytes
from datastore_lab.cache.sources import is_local, is_standard
from datastore_lab.errors import NotStorable

__all__ = [
    "Hasher",
    "forget_hasher",
    "hexdigest",
    "immutable",
    "importable",
    "join",
    "refusal",
    "register_hasher",
]

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

_WEAK = (weakref.ReferenceType, weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)

_APART = (threading.local, contextvars.ContextVar, contextvars.Context)

_ENUM_NOISE = {"_value_", "_name_", "__objclass__", "_sort_order_"}

_STATELESS = {"_thread.lock", "_thread.RLock", "logging.Logger", "logging.RootLogger"}
"""Objects whose state never is part of a result."""

_OPEN_BOOKS = {"attr", "dateutil", "numpy", "pytz", "scipy"}
"""Libraries whose objects are rebuilt, for `copy` and `pickle`, from all that they consist of."""

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


class Hasher:
    """Encodes one value.

    Parameters
    ----------
    reference : callable
        Encodes a function, class or module, by code.
    uses : callable
        Is told the module of every class of a library whose objects are met.
    bare : bool, default False
        Leave out what cached properties have been filled with.
    """

    def __init__(self, reference: Encode, uses: Callable[[str], None], *, bare: bool = False) -> None:
        self._bare = bare
        self.computed = False
        self.reference = reference
        self.uses = uses
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
        atom = ATOMS.get(type(obj))
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
            self.uses(type(obj).__module__)
            return special(obj, path, self.encode)
        if isinstance(obj, _CODE):
            return self._code(obj, path)
        if isinstance(obj, enum.Enum):
            value = self.encode(obj.value, f"{path}.value")
            own = {name: part for name, part in vars(obj).items() if name not in _ENUM_NOISE}
            rest = self.encode(own, path) if own else b""
            return join(b"E", [self.reference(type(obj), path), str(obj.name).encode(), value, rest])
        return self._instance(obj, path)

    def _code(self, obj: Any, path: str) -> bytes:
        """Encode code that is passed around as a value, so that its attributes may be read anywhere."""
        named = self.reference(obj, path)
        if not isinstance(obj, types.FunctionType) or not is_local(obj.__globals__.get("__name__")):
            return named
        own = {name: part for name, part in vars(obj).items() if name != "__wrapped__"}
        return join(b"f", [named, self.encode(own, path)]) if own else named

    def _instance(self, obj: Any, path: str) -> bytes:
        cls = type(obj)
        if f"{cls.__module__}.{cls.__qualname__}" in _STATELESS:
            return join(b"N", [_type_name(cls)])
        _refuse_passing(obj, path)
        if is_local(cls.__module__) or tables.base_of(cls) is not None:
            return self._own(obj, path)
        if cls is _LRU_CACHE or hasattr(cls, "__cached_function__"):
            return join(b"w", [self.reference(cls, path), self.encode(obj.__wrapped__, path)])
        if importable(obj):
            return self.reference(obj, path)
        if is_standard(cls.__module__) or cls.__module__.partition(".")[0] in _OPEN_BOOKS:
            self.uses(cls.__module__)
            return join(b"r", [_type_name(cls), self._rebuilt(obj, path)])
        raise refusal(obj, path)

    def _rebuilt(self, obj: Any, path: str, base: type | None = None) -> bytes:
        """Encode an object by what it would be rebuilt from."""
        try:
            found = state.reduced(obj, base)
        except Exception as error:  # (what says how it is rebuilt may be the user's code)
            raise refusal(obj, path) from error
        if not isinstance(found, tuple):
            return self.encode(found, path)
        make, arguments, *others = found
        rest: list[Any] = list(others)
        if len(rest) == 3 and rest[2] is not None and not isinstance(obj, collections.OrderedDict):
            rest[2] = dict(rest[2])
        rest = [list(part) if hasattr(part, "__next__") else part for part in rest]
        if isinstance(obj, BaseException):
            rest.append(obj.__cause__)
        return join(b"(", [self.encode(part, path) for part in (make, arguments, *rest)])

    def _own(self, obj: Any, path: str) -> bytes:
        """Encode an object of a class of the user's: the code of the class and the state."""
        cls = type(obj)
        base, content = self._base_content(obj, path)
        found = tables.attributes(base, state.attributes(obj, without=base))
        encoded = [
            join(b"=", [name.encode(), self.encode(value, f"{path}.{name}")])
            for name, value in sorted(found.items())
            if not self._leaves_out(cls, name)
        ]
        return join(b"O", [self.reference(cls, path), content, *encoded])

    def _leaves_out(self, cls: type, name: str) -> bool:
        filled = state.is_computed(cls, name)
        self.computed |= filled
        return filled and self._bare

    def _base_content(self, obj: Any, path: str) -> tuple[type | None, bytes]:
        """Encode what an object holds as the list, dict, text, array, ... that it also is."""
        if (table := tables.base_of(type(obj))) is not None and (encode := tables.encoder_of(table)):
            self.uses(table.__module__)
            return table, encode(obj, path, self.encode)
        for cls in type(obj).__mro__[1:]:
            if cls in ATOMS:
                return None, ATOMS[cls](cls(obj) if cls is not str else str.__str__(obj))
            if cls in _CONTAINERS and cls is not collections.OrderedDict:
                return None, _CONTAINERS[cls](self, obj, path)
            if cls.__module__ == "numpy" and cls.__qualname__ == "ndarray":
                return None, arrays.encode_array(obj.view(cls), path, self.encode)
            if cls is state.rebuilt_by(type(obj)):
                return cls, self._rebuilt(obj, path, cls)
        if state.hides(type(obj)):
            raise refusal(obj, path)
        return None, b""


def _refuse_passing(obj: Any, path: str) -> None:
    """Refuse what is gone when it has been read, or when nobody else holds it any more."""
    if isinstance(obj, _ONCE_ONLY) or (type(obj).__module__ == "itertools" and hasattr(obj, "__next__")):
        raise NotStorable(
            f"{path} is a {type(obj).__name__}, which can be read only once; pass a list or an array",
            key=path,
        )
    if isinstance(type(obj), type) and issubclass(type(obj), _WEAK):
        raise NotStorable(
            f"{path} is a weak reference ({type(obj).__name__}), behind which anything may change or vanish; "
            "pass the object itself, or leave it out with ignore_kwargs if results do not depend on it",
            key=path,
        )
    if isinstance(obj, _APART):
        raise NotStorable(
            f"{path} ({type(obj).__qualname__}) holds something else in each thread or context; read what is "
            "needed from it into a variable or argument first, or leave it out with ignore_kwargs if results "
            "do not depend on it",
            key=path,
        )


_LRU_CACHE = type(functools.lru_cache(_refuse_passing))


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
    if "O" in obj.format:
        raise NotStorable(f"{path} is a view of objects, not of their content; pass a list", key=path)
    return join(b"v", [obj.format.encode(), repr(obj.shape).encode(), of_bytes(obj.tobytes())])


def _keys_view(hasher: Hasher, obj: Any, path: str) -> bytes:
    """Encode the keys or items of a dictionary, whose order does not count."""
    return join(b"k", [type(obj).__name__.encode(), _set(b"S")(hasher, obj, path)])


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
    type({}.keys()): _keys_view,
    type({}.items()): _keys_view,
    type({}.values()): lambda hasher, obj, path: join(b"y", [hasher.encode(list(obj), path)]),
    typing.ForwardRef: lambda hasher, obj, path: join(b"F", [obj.__forward_arg__.encode()]),
    functools.cached_property: lambda hasher, obj, path: join(b"h", [hasher.encode(obj.func, path)]),
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
    return (type(obj) in ATOMS and type(obj) is not bytearray) or arrays.is_number(obj)
