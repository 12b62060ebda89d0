"""The key of a call: everything that its result depends on."""

from __future__ import annotations

import inspect
import reprlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.cache.hashing import hexdigest, join
from datastore_lab.cache.walk import Walk, digest
from datastore_lab.errors import NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.guards import Guards

LAYOUT = "2"
"""Part of every key; grows whenever the meaning of keys changes."""

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_LONGEST = 200


class Call(NamedTuple):
    """The key of one call, and the digests of its arguments."""

    key: str
    arguments: dict[str, str]
    bound: Mapping[str, Any]


class FunctionKey:
    """Makes the keys of the calls of one function.

    Parameters
    ----------
    function : callable
    ignore : iterable of str
        Parameters, globals and closure variables that results do not depend on.
    version : object, optional
        Changes all keys when it changes.

    Examples
    --------
    >>> def area(width, height=1): return width * height
    >>> keys = FunctionKey(area)
    >>> keys.call((2,), {}).key == keys.call((), {"height": 1, "width": 2}).key
    True
    >>> keys.call((2,), {}).key == keys.call((2.0,), {}).key
    False
    """

    def __init__(self, function: Callable[..., Any], ignore: Iterable[str] = (), version: Any = None) -> None:
        self.function = function
        self.ignore = frozenset(ignore)
        self.owner = f"{getattr(function, '__module__', None) or '__main__'}.{_name(function)}"
        self._version = digest(version, "version")
        self._signature = _signature(function)
        parameters = list(self._signature.parameters.values()) if self._signature else []
        plain = bool(parameters) and all(parameter.kind is _POSITIONAL for parameter in parameters)
        self._plain = [parameter.name for parameter in parameters] if plain else None
        self._many = {
            parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.VAR_KEYWORD
        }
        self._known: tuple[dict[str, str], str, Guards] | None = None
        self._lock = threading.Lock()
        self._check_ignored()

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Give the key of a call.

        Raises
        ------
        TypeError
            If the arguments do not fit the function.
        NotStorable
            Naming the argument, or the variable that the function reads, whose content can't be told.
        """
        bound = self._bind(args, kwargs)
        arguments = {
            name: digest(value, f"argument {name!r} of {_name(self.function)}")
            for name, value in bound.items()
            if name not in self.ignore
        }
        pieces = [part.encode() for name in sorted(arguments) for part in (name, arguments[name])]
        return Call(hexdigest(join(self._code()[1].encode(), pieces)), arguments, bound)

    def parts(self, call: Call) -> dict[str, str]:
        """Give everything that the key of a call is made of, by name."""
        arguments = {f"argument {name}": found for name, found in call.arguments.items()}
        return {**self._code()[0], **arguments, "version": self._version}

    def _code(self) -> tuple[dict[str, str], str]:
        with self._lock:
            if self._known is None or not self._known[2].hold():
                walk = Walk(self.ignore)
                parts = walk.function(self.function)
                pieces = [part.encode() for name in sorted(parts) for part in (name, parts[name])]
                head = [LAYOUT.encode(), self.owner.encode(), self._version.encode()]
                self._known = parts, hexdigest(join(b"code", [*head, *pieces])), walk.guards
            return self._known[:2]

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        if self._plain is not None and not kwargs and len(args) == len(self._plain):
            return dict(zip(self._plain, args, strict=True))
        if self._signature is None:  # made in C, without a signature
            return {"args": args, "kwargs": kwargs}
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for name in self._many:  # each one a part of its own, and each one can be ignored
            found.update(
                {f"**{key}" if key in found else key: value for key, value in found.pop(name).items()}
            )
        return found

    def _check_ignored(self) -> None:
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        if self._signature is None or self._many or code is None:
            return
        known = {*self._signature.parameters, *code.co_names, *code.co_freevars}
        if unknown := self.ignore - known:
            raise ValueError(
                f"ignore_kwargs names {sorted(unknown)}, but {_name(self.function)} has the parameters "
                f"{list(self._signature.parameters)} and reads no variable of that name"
            )


def describe(bound: Mapping[str, Any]) -> str:
    """Write the arguments of a call as short text for people.

    Examples
    --------
    >>> describe({"n": 3, "name": "x" * 100})
    "n=3, name='xxxxxxxxxxxx...xxxxxxxxxxxxx'"
    """
    return ", ".join(f"{name}={_short(value)}" for name, value in bound.items())[:_LONGEST]


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{type(value).__name__}{shape}"
    try:
        return reprlib.repr(value).encode(errors="replace").decode()
    except Exception:  # (the repr of a user's class may fail in any way, and is for people only)
        return type(value).__name__


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        if not callable(function):
            raise NotStorable(f"{function!r} is not a function", key=repr(function)) from None
        return None


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
