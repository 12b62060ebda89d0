"""What code takes from modules: imports inside functions, and what is put into the modules of libraries."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING

from datastore_lab.cache import kinds, names, opaque, sources
from datastore_lab.cache.atoms import join
from datastore_lab.cache.guards import MISSING

if TYPE_CHECKING:
    from datastore_lab.cache.walk import Walk


def follow(walk: Walk, item: names.Import, package: str | None) -> bytes:
    """Encode what an import statement brings, as far as the code uses it.

    Parameters
    ----------
    walk : Walk
        That reached the statement.
    item : Import
    package : str or None
        Of the code, for relative imports.
    """
    name = "." * item.level + item.module
    name = importlib.util.resolve_name(name, package) if item.level else name
    if name.partition(".")[0] in walk.ignore:
        return b""
    if not sources.is_local(name):
        opaque.check_members(name, item.chains, name)
        walk.reached.version(name)
        return _of_library(walk, item, name)
    try:
        module = importlib.import_module(name)
    except ImportError:
        return b"missing " + name.encode()
    if item.top:
        name = name.partition(".")[0]
        return _taken(walk, sys.modules[name], name, item.top)
    return _taken(walk, module, name, item.chains)


def _taken(walk: Walk, module: types.ModuleType, name: str, chains: names.Chains) -> bytes:
    inner = [part for part in chains if part and part[0] not in vars(module)]
    for part in sorted(inner):  # (from package import submodule)
        follow(walk, names.Import(f"{name}.{part[0]}", 0, names.WHOLE), None)
    rest = frozenset(chains) - frozenset(inner)
    return walk.bound(name, rest, module, lambda: sys.modules.get(name)) if rest else name.encode()


def _of_library(walk: Walk, item: names.Import, name: str) -> bytes:
    loaded = sys.modules.get(name.partition(".")[0] if item.top else name)
    chains = frozenset(chain for chain in item.top or item.chains if chain)
    used = b"" if loaded is None else walk.bound(name, chains, loaded, lambda: loaded)
    return join(name.encode(), [used])


def library(walk: Walk, module: types.ModuleType, chains: names.Chains, path: str) -> bytes:
    """Encode what code takes from a module that is not local.

    Raises
    ------
    NotStorable
        If that reaches what the code does not name.
    """
    opaque.check_members(module.__name__, chains, path)
    put = [_put_into(walk, module, chain, path) for chain in sorted(chains)]
    return join(b"code", [walk.module(module), *filter(None, put)])


def _put_into(walk: Walk, module: types.ModuleType, chain: tuple[str, ...], path: str) -> bytes:
    """Encode a function or class of the user's that stands in for one of a library, as tests put it there."""
    for name in chain:
        space = vars(module)
        obj, path = space.get(name, MISSING), f"{path}.{name}"
        walk.guards.bindings.append((space, name, obj))
        if not isinstance(obj, types.ModuleType):
            own = isinstance(obj, (types.FunctionType, type)) and sources.is_local(kinds.home(obj))
            return walk.reference(obj, path) if own else b""
        module = obj
    return b""
