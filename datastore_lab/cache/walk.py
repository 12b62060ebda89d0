"""The walk through everything that a value or a function depends on.

Code is a graph with cycles: functions call each other, methods name their class. So every function, class
and module that is reached becomes a *part* with a digest of its own, in which others are named by their
labels; all parts together decide the key, and comparing two sets of parts tells why a result was computed
anew.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from datastore_lab.cache import imports, kinds, names, opaque, sources
from datastore_lab.cache.atoms import ATOMS, hexdigest, join
from datastore_lab.cache.guards import MISSING, Guards, Rehash, Surface, cell_value
from datastore_lab.cache.hashing import Hasher, refusal
from datastore_lab.cache.reached import Reached
from datastore_lab.errors import NotStorable

CELL = "this cell"

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_BOUND = (types.MethodType, types.MethodWrapperType)


class Walk:
    """Collects the parts of one value or function.

    Parameters
    ----------
    ignore : iterable of str
        Names of globals and closure variables that results do not depend on.
    docs : bool, default False
        Count docstrings even if no code that is reached reads them.

    Attributes
    ----------
    parts : dict of str to str
        What was reached (``"code of module.function"``, ``"module.VALUE"``), and its digest or version.
    guards : Guards
    """

    def __init__(self, ignore: Iterable[str] = (), *, docs: bool = False) -> None:
        self.reached = Reached()
        self.parts = self.reached.parts
        self.named = self.reached.named
        self.guards = Guards(surface)
        self.hasher = Hasher(self.reference, self.reached.version)
        self.ignore = frozenset(ignore)
        self._reads_docs = docs
        self._within: set[int] = set()
        self.references = 0
        self._root: Any = None
        self._begun = self._root_is_called = False

    # -- entrances ------------------------------------------------------------------------------------

    def function(self, function: Callable[..., Any]) -> dict[str, str]:
        """Collect the parts of a function."""
        self._root = function
        if kinds.is_code(function):
            self.reference(function, getattr(function, "__qualname__", repr(function)))
        else:  # a partial, a bound method, an object that can be called
            self.bound("the function itself", names.WHOLE, function, lambda: function)
        self._finish()
        if self._root_is_called:
            uses = self._defaults(self._root, "the function itself")
            self.parts["own defaults"] = hexdigest(join(b"d", uses))
            self._finish()
        return self.parts

    def reads(self, read: Mapping[str, names.Chains], space: Mapping[str, Any]) -> None:
        """Collect what a piece of top-level code reads by name."""
        uses = [self._use(CELL, name, chains, space) for name, chains in sorted(read.items())]
        self.parts["names in this cell"] = hexdigest(join(b"u", uses))

    def importing(self, found: Iterable[names.Import], package: str | None) -> None:
        """Collect what a piece of top-level code imports."""
        used = [imports.follow(self, item, package) for item in found]
        self.parts["imports of this cell"] = hexdigest(join(b"i", used))

    def finish(self) -> dict[str, str]:
        """Follow everything reached so far to its end, and give the parts."""
        self._finish()
        return self.parts

    def _finish(self) -> None:
        while (found := self.reached.next()) is not None:
            obj, label = found
            self.parts[f"code of {label}"] = hexdigest(self._unit(obj, label))
        if self._reads_docs:
            self.reached.count_docs()

    # -- references -----------------------------------------------------------------------------------

    def reference(self, obj: Any, path: str) -> bytes:
        """Name a function, class or module; local code is put on the list of what to visit."""
        self.references += 1
        if isinstance(obj, _BOUND) or kinds.is_bound_builtin(obj):
            owner = self.hasher.encode(obj.__self__, f"the object of {path}")
            function = getattr(obj, "__func__", None)
            named = self.reference(function, path) if function else obj.__name__.encode()
            return join(b"M", [owner, named])
        if isinstance(obj, types.ModuleType):
            return self.module(obj)
        module = kinds.home(obj)
        label = f"{module}.{kinds.own_name(obj)}"
        if sources.is_local(module) and isinstance(obj, (types.FunctionType, type)):
            return self._label(obj, label)
        return self._foreign(obj, module, label, path)

    def _foreign(self, obj: Any, module: str, label: str, path: str) -> bytes:
        """Name something of a library, and look into what a decorator of the library holds."""
        opaque.check(obj, label, path)
        self.reached.version(module)
        if not kinds.is_wrapper(obj):
            return b"X" + label.encode()
        self.guards.functions.append((obj, obj.__code__, obj.__defaults__, obj.__kwdefaults__))
        return join(b"Y", [label.encode(), self.hasher.encode(kinds.held(obj), f"inside {path}")])

    def module(self, module: types.ModuleType) -> bytes:
        """Name a module; all of one that is local is put on the list."""
        if sources.is_local(module.__name__):
            return self._label(module, module.__name__)
        self.reached.version(module.__name__)
        return b"X" + module.__name__.encode()

    def _label(self, obj: Any, wanted: str) -> bytes:
        known, label = obj is self._root, self.reached.label(obj, wanted)
        self._root_is_called |= known and self._begun
        self._begun |= known
        return b"L" + label.encode()

    # -- units of local code --------------------------------------------------------------------------

    def _unit(self, obj: Any, label: str) -> bytes:
        if isinstance(obj, types.FunctionType):
            return self._function(obj, label)
        if isinstance(obj, type):
            return self._class(obj, label)
        space = vars(obj)
        self.reached.version(obj.__name__)
        self.guards.sizes.append((space, len(space)))
        own = sorted(name for name in space if name not in kinds.MODULE_NOISE)
        return join(b"module", [self._use(label, name, names.WHOLE, space) for name in own])

    def _function(self, function: types.FunctionType, label: str) -> bytes:
        code = function.__code__
        self.guards.functions.append((function, code, function.__defaults__, function.__kwdefaults__))
        text, doc = sources.form(code)
        self.reached.doc(label, doc)
        read = names.of_code(code)
        self._reads_docs |= read.docs
        for attribute in sorted(read.opaque - self.ignore):
            raise opaque.refusal(label, attribute, attribute)
        if "__class__" in code.co_freevars:
            read = read._replace(closure={**read.closure, "__class__": names.WHOLE})
        uses = [self._use(label, name, chains, function.__globals__) for name, chains in read.globals.items()]
        uses += [self._use_cell(label, name, chains, function) for name, chains in read.closure.items()]
        package = function.__globals__.get("__package__")
        uses += [imports.follow(self, item, package) for item in read.imports]
        if function is not self._root:  # (the defaults of the function itself come with the arguments)
            uses += self._defaults(function, label)
        if "__wrapped__" in vars(function):
            uses.append(self.hasher.encode(vars(function)["__wrapped__"], label))
        return join(b"function", [text.encode("utf-8", "surrogatepass"), *uses])

    def _defaults(self, function: types.FunctionType, label: str) -> list[bytes]:
        named = function.__kwdefaults__ or {}
        placed = enumerate(function.__defaults__ or ())
        uses = [self._placed(f"default {number} of {label}", default) for number, default in placed]
        return uses + [self._default(label, name, named) for name in sorted(named)]

    def _placed(self, path: str, default: Any) -> bytes:
        return self.bound(path, names.WHOLE, default, lambda: default)

    def _default(self, label: str, name: str, named: dict[str, Any]) -> bytes:
        default = named[name]
        if kinds.settled(default):
            self.guards.bindings.append((named, name, default))
        fetch = functools.partial(named.get, name, MISSING)
        return join(name.encode(), [self.bound(f"default {name} of {label}", names.WHOLE, default, fetch)])

    def _class(self, cls: type, label: str) -> bytes:
        space = vars(cls)
        self.guards.sizes.append((space, len(space)))
        self.guards.bases.append((cls, cls.__bases__))
        self.reached.version(cls.__module__)
        self.reached.doc(label, cls.__doc__ if isinstance(cls.__doc__, str) else "")
        bases = [self.reference(base, label) for base in (type(cls), *cls.__bases__)]
        annotations = [self._annotation(label, *item) for item in inspect.get_annotations(cls).items()]
        own = sorted(name for name in space if name not in kinds.CLASS_NOISE)
        members = [self._use(label, name, names.WHOLE, space) for name in own]
        return join(b"class", [*bases, join(b"annotations", annotations), *members])

    def _annotation(self, label: str, name: str, form: Any) -> bytes:
        try:
            encoded = self.hasher.encode(form, f"annotation of {label}.{name}")
        except NotStorable:  # (as of a forward reference, which keeps what it was resolved to)
            encoded = _ADDRESS.sub("", repr(form)).encode()
        return join(name.encode(), [encoded])

    # -- names that code reads ------------------------------------------------------------------------

    def _use(self, owner: str, name: str, chains: names.Chains, space: Mapping[str, Any]) -> bytes:
        if name in self.ignore:
            return b""
        obj = space.get(name, MISSING)
        if obj is MISSING:
            if name in opaque.BUILTINS:
                raise opaque.refusal(owner, f"{name}()", name)
            self.guards.bindings.append((space, name, MISSING))
            known = "builtin" if hasattr(builtins, name) else "missing"
            return f"{name} {known}".encode()
        home = owner if isinstance(space, types.MappingProxyType) else space.get("__name__", owner)
        path = name if owner == CELL else f"{home}.{name}"
        if kinds.settled(obj):
            self.guards.bindings.append((space, name, obj))
        return join(
            name.encode(), [self.bound(path, chains, obj, functools.partial(space.get, name, MISSING))]
        )

    def _use_cell(self, owner: str, name: str, chains: names.Chains, function: types.FunctionType) -> bytes:
        cell = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)).get(name)
        if cell is None or name in self.ignore:
            return b""
        obj = cell_value(cell)
        if kinds.settled(obj):
            self.guards.cells.append((cell, obj))
        if obj is MISSING:
            return f"{name} unset".encode()
        return join(name.encode(), [self.bound(f"{name} in {owner}", chains, obj, lambda: cell_value(cell))])

    def bound(self, path: str, chains: names.Chains, obj: Any, fetch: Callable[[], Any]) -> bytes:
        """Encode what a name stands for: code by reference, a value as a part with a digest of its own."""
        if isinstance(obj, types.ModuleType) and () not in chains:
            return self._members(obj, chains, path)
        if isinstance(obj, (staticmethod, classmethod)):
            return join(
                type(obj).__name__.encode(), [self.bound(path, chains, obj.__func__, lambda: obj.__func__)]
            )
        if kinds.is_code(obj):
            if kinds.is_wrapper(obj):
                self._watch(path, obj, fetch)
            return join(b"code", [self.reference(obj, path), *self._attributes(path, obj, chains)])
        if kinds.is_cached_function(obj):
            return self._cached(path, chains, obj)
        return self._value(path, obj, fetch)

    def _value(self, path: str, obj: Any, fetch: Callable[[], Any]) -> bytes:
        opaque.check(obj, "", path)
        before = self.references
        found = hexdigest(self.hasher.encode(obj, path))
        if not kinds.settled(obj):
            # labels may be numbered otherwise in a walk of its own, so what to compare with is from one
            alone = Surface(found, ()) if self.references == before else surface(obj, path)
            self.guards.rehash.append(Rehash(fetch, alone, path))
        return join(b"value", [self.reached.note(path, found).encode()])

    def _watch(self, path: str, obj: Any, fetch: Callable[[], Any]) -> None:
        self.guards.rehash.append(Rehash(fetch, surface(obj, path), path))

    def _cached(self, path: str, chains: names.Chains, obj: Any) -> bytes:
        """Encode a cached function as the function that it wraps, with what it was told to leave out."""
        function, ignored, version = kinds.settings(obj)
        if ignored - self.ignore and function is not self._root:
            named = self._apart(path, function, ignored)
        else:
            named = self.bound(path, chains, function, lambda: function)
        return join(b"cached", [named, version.encode(), *self._attributes(path, obj, chains)])

    def _apart(self, path: str, function: Any, ignored: frozenset[str]) -> bytes:
        """Walk through a function that leaves out other names than this walk does."""
        if id(function) in self._within:
            return f"within {path}".encode()
        walk = Walk(self.ignore | ignored, docs=self._reads_docs)
        walk._within = {*self._within, id(self._root), id(function)}
        for name, found in walk.function(function).items():
            if name.startswith("version of "):
                self.parts[name] = found
            else:
                self.reached.note(f"{name} (for {path})", found)
        self.guards.extend(walk.guards)
        parts = [f"{name}={found}".encode() for name, found in sorted(walk.parts.items())]
        return hexdigest(join(b"apart", parts)).encode()

    def _members(self, module: types.ModuleType, chains: names.Chains, path: str) -> bytes:
        """Encode only those attributes of a local module that the code names."""
        if not sources.is_local(module.__name__):
            return imports.library(self, module, chains, path)
        found: dict[str, set[tuple[str, ...]]] = {}
        for chain in chains:
            found.setdefault(chain[0], set()).add(chain[1:])
        space = vars(module)
        uses = []
        for name, rest in sorted(found.items()):
            if name not in space and hasattr(module, name):
                raise NotStorable(
                    f"the cache can't follow {module.__name__}.{name}, which the module computes when asked; "
                    "import it by name",
                    key=name,
                )
            uses.append(self._use(module.__name__, name, frozenset(rest), space))
        return join(b"members", [module.__name__.encode(), *uses])

    def _attributes(self, path: str, obj: Any, chains: names.Chains) -> list[bytes]:
        """Encode the attributes that code reads from a function, as in ``function.table``."""
        if not (isinstance(obj, types.FunctionType) or kinds.is_cached_function(obj)):
            return []
        space = vars(obj)
        self.guards.sizes.append((space, len(space)))
        known = {**space, "__annotations__": getattr(obj, "__annotations__", None)}
        read = sorted({chain[0] for chain in chains if chain} & known.keys() - {"__wrapped__"})
        found = [self._attribute(f"{path}.{name}", name, space if name in space else known) for name in read]
        return [join(name.encode(), [part]) for name, part in zip(read, found, strict=True)]

    def _attribute(self, path: str, name: str, space: dict[str, Any]) -> bytes:
        if kinds.settled(space[name]):
            self.guards.bindings.append((space, name, space[name]))
        return self.bound(path, names.WHOLE, space[name], functools.partial(space.get, name, MISSING))


def digest(obj: Any, path: str = "value") -> str:
    """Give the digest of a value's content.

    Returns
    -------
    str
        32 hexadecimal digits, equal for equal content in every process.

    Raises
    ------
    NotStorable
        Naming the part whose content can't be read.

    Examples
    --------
    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    """
    return content(obj, path).digest


class Content(NamedTuple):
    """A digest, the libraries whose objects were met, and whether cached properties had been filled."""

    digest: str
    libraries: Collection[str] = ()
    computed: bool = False


def content(obj: Any, path: str, *, bare: bool = False) -> Content:
    """Digest a value, and tell which libraries it hangs on; bare is without filled cached properties.

    Raises
    ------
    NotStorable
        Naming the part whose content can't be read.
    """
    if (atom := ATOMS.get(type(obj))) is not None:
        return Content(hexdigest(atom(obj)))
    look = _Look(bare=bare)
    try:
        encoded = look.hasher.encode(obj, path)
        parts = look.walk.finish() if look.walk is not None else {}
    except RecursionError as error:
        raise refusal(obj, path) from error
    reached = [f"{name}={found}".encode() for name, found in sorted(parts.items())]
    whole = join(b"v", [encoded, *reached]) if reached else encoded
    return Content(hexdigest(whole), look.libraries, look.hasher.computed)


def surface(obj: Any, path: str) -> Surface:
    """Look at a value without following the code that it names: that has guards of its own."""
    look = _Look()
    found = hexdigest(look.hasher.encode(obj, path))
    return Surface(found, () if look.walk is None else tuple(obj for _, obj in look.walk.named()))


class _Look:
    """Encodes one value, and begins a walk only where the value names code."""

    def __init__(self, *, bare: bool = False) -> None:
        self.libraries: set[str] = set()
        self.hasher = Hasher(self._reference, self.libraries.add, bare=bare)
        self.walk: Walk | None = None

    def _reference(self, obj: Any, path: str) -> bytes:
        if self.walk is None:
            self.walk = Walk()
            self.walk.hasher = self.hasher
        return self.walk.reference(obj, path)
