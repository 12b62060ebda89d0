"""The key of a call: everything that its result depends on."""

from __future__ import annotations

import builtins
import inspect
import reprlib
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.cache import chosen, opaque, sources
from datastore_lab.cache.hashing import hexdigest, join
from datastore_lab.cache.walk import Walk, content, digest
from datastore_lab.errors import NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.guards import Guards

LAYOUT = "5"
"""Part of every key; grows whenever the meaning of keys changes."""

ARGUMENT = "argument "
"""What the name of a part begins with that is an argument."""

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_LONGEST = 200
_MOST = 4096


class Code(NamedTuple):
    """The state of everything that a function depends on, its arguments left out.

    Attributes
    ----------
    digest : str
    parts : dict of str to str
        What was reached, with its digest or version.
    named : dict of str to object
        The functions, classes and modules that were reached, by label.
    """

    digest: str
    parts: dict[str, str]
    named: dict[str, Any]


class Call(NamedTuple):
    """The key of one call, the digests of its arguments, and the code that it was made for.

    Attributes
    ----------
    libraries : dict of str to str
        Versions of the libraries whose objects are among the arguments.
    bare : dict of str to str
        Digests without cached properties, where some have been filled.
    """

    key: str
    arguments: dict[str, str]
    bound: Mapping[str, Any]
    code: Code
    libraries: dict[str, str]
    bare: dict[str, str]


class FunctionKey:
    """Makes the keys of the calls of one function.

    Parameters
    ----------
    function : callable
    ignore : iterable of str
        Parameters, globals and closure variables that results do not depend on.
    version : object, optional
        Changes all keys when it changes.
    deps : "auto", "none" or iterable, default "auto"
        Which code and variables count, see `datastore_lab.cache.cached`.

    Examples
    --------
    >>> def area(width, height=1): return width * height
    >>> keys = FunctionKey(area)
    >>> keys.call((2,), {}).key == keys.call((), {"height": 1, "width": 2}).key
    True
    >>> keys.call((2,), {}).key == keys.call((2.0,), {}).key
    False
    """

    def __init__(
        self,
        function: Callable[..., Any],
        ignore: Iterable[str] = (),
        version: Any = None,
        deps: str | Iterable[Any] = "auto",
    ) -> None:
        self.function = function
        self._deps = chosen.checked(deps)
        self.ignore = frozenset(ignore)
        self.owner = f"{getattr(function, '__module__', None) or '__main__'}.{_name(function)}"
        self._shown = _name(function)
        self._same: dict[str, str] = {}
        self.version = digest(version, "version")
        self._take_signature()
        self._known: tuple[Code, Guards] | None = None
        self._lock = threading.Lock()
        self._check_ignored()

    def _take_signature(self) -> None:
        self._signature = _signature(self.function)
        parameters = list(self._signature.parameters.values()) if self._signature else []
        plain = bool(parameters) and all(parameter.kind is _POSITIONAL for parameter in parameters)
        self._plain = [parameter.name for parameter in parameters] if plain else None
        given = ((parameter.name, parameter.default) for parameter in parameters)
        self._defaults = {name: default for name, default in given if default is not inspect.Parameter.empty}
        self._many = {
            parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.VAR_KEYWORD
        }

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Give the key of a call.

        Raises
        ------
        TypeError
            If the arguments do not fit the function.
        NotStorable
            Naming the argument, or the variable that the function reads, whose content can't be told.
        """
        code = self.code()
        bound = self._bind(args, kwargs)
        arguments, libraries, bare = {}, {}, {}
        for name, value in bound.items():
            if name not in self.ignore:
                found = content(value, f"argument {name!r} of {self._shown}")
                arguments[name] = found.digest
                if found.computed:
                    bare[name] = content(value, name, bare=True).digest
                if found.libraries:
                    libraries.update(_versions(found.libraries, code.parts))
        key = key_of(code.digest, {**arguments, **libraries})
        return Call(self._same.get(key, key), arguments, bound, code, libraries, bare)

    def know(self, call: Call, filled: Mapping[str, str]) -> None:
        """Know a call again after its function has filled cached properties of its arguments.

        Parameters
        ----------
        call : Call
        filled : mapping of str to str
            Digests of these arguments now.
        """
        if len(self._same) >= _MOST:
            self._same.clear()
        self._same[key_of(call.code.digest, {**call.arguments, **filled, **call.libraries})] = call.key

    def parts(self, call: Call) -> dict[str, str]:
        """Give everything that the key of a call is made of, by name."""
        return {**call.code.parts, **self.own_parts(call)}

    def own_parts(self, call: Call) -> dict[str, str]:
        """Give what the key of a call is made of besides the code, by name."""
        found = {**call.arguments, **call.libraries}
        arguments = {f"{ARGUMENT}{name}": digest for name, digest in found.items()}
        return {**arguments, "version": self.version}

    def code(self) -> Code:
        """Give the state of the code as it is now."""
        with self._lock:
            if self._known is None or not self._known[1].hold():
                self._take_signature()  # (defaults may have been given anew)
                walk = Walk(self.ignore)
                parts = self._walked(walk)
                pieces = [part.encode() for name in sorted(parts) for part in (name, parts[name])]
                head = [LAYOUT.encode(), self.owner.encode(), self.version.encode()]
                found = hexdigest(join(b"code", [*head, *pieces]))
                self._known = Code(found, parts, dict(walk.named())), walk.guards
            return self._known[0]

    def _walked(self, walk: Walk) -> dict[str, str]:
        if self._deps == "auto":
            return walk.function(self.function)
        return {} if self._deps == "none" else chosen.parts(walk, self.function, self._deps)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        if self._plain is not None and (quick := self._bind_plain(self._plain, args, kwargs)) is not None:
            return quick
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

    def _bind_plain(
        self, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Bind without `inspect`, which takes ten times as long; None where it has to say what is wrong."""
        if len(args) > len(names):
            return None
        bound, rest = dict(zip(names, args, strict=False)), names[len(args) :]
        given = {**self._defaults, **kwargs} if kwargs else self._defaults
        if not all(name in rest for name in kwargs) or not all(name in given for name in rest):
            return None
        bound.update((name, given[name]) for name in rest)
        return bound

    def _check_ignored(self) -> None:
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        if self._signature is None or self._many or code is None:
            return
        known = {*self._signature.parameters, *_names_in(code)}
        unknown = {name for name in self.ignore - known if not _is_seen(name, inspect.unwrap(self.function))}
        if unknown:
            raise ValueError(
                f"ignore_kwargs names {sorted(unknown)}, but {_name(self.function)} has the parameters "
                f"{list(self._signature.parameters)} and reads no variable of that name"
            )


def _names_in(code: types.CodeType) -> set[str]:
    inner = (item for item in code.co_consts if isinstance(item, types.CodeType))
    return {*code.co_names, *code.co_freevars}.union(*map(_names_in, inner))


def _is_seen(name: str, function: Any) -> bool:
    """Tell whether a helper of a function may read a name: it is known in its module, or beside a helper."""
    space = function.__globals__
    others = [
        getattr(value, "__globals__", None) or vars(value)
        for value in list(space.values())
        if isinstance(value, (types.FunctionType, types.ModuleType))
    ]
    return any(name in names for names in (space, vars(builtins), opaque.ATTRIBUTES, *others))


def _versions(modules: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Give the versions of the libraries whose objects are arguments, but which the code does not name."""
    found = (sources.distribution(module) for module in modules if not sources.is_standard(module))
    return {f"({name})": version for name, version in found if f"version of {name}" not in known}


def key_of(code: str, arguments: Mapping[str, str]) -> str:
    """Give the key of a call from the digests of code and arguments."""
    pieces = [part.encode() for name in sorted(arguments) for part in (name, arguments[name])]
    return hexdigest(join(code.encode(), pieces))


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
        # what stands between the caller and a wrapped function may have other defaults
        return inspect.signature(function, follow_wrapped=False)
    except (ValueError, TypeError):
        if not callable(function):
            raise NotStorable(f"{function!r} is not a function", key=repr(function)) from None
        return None


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
