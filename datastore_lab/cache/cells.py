"""The results of notebook cells: key, variables and output, in a store.

An entry is the record at ``("cache", "cells", <key>)`` (``"cells.<name>"`` for a named cell): the output of
the cell as JSON text in bytes, with the attributes of every entry and the cell's source. Its variables are
records of their own below ``"variables"``.
"""

from __future__ import annotations

import ast
import importlib
import sys
import types
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import media
from datastore_lab.cache import entries, identity
from datastore_lab.cache.guards import MISSING
from datastore_lab.cache.hashing import hexdigest, join
from datastore_lab.cache.key import LAYOUT
from datastore_lab.cache.reading import bound_names
from datastore_lab.cache.walk import Walk
from datastore_lab.errors import NotFound, NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.reading import Cell
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

VARIABLES = "variables"

SHOWN = "value of this cell"
"""The name, which no variable can have, under which the value that the cell showed is kept."""

_NOT_VALUES = ("code of ", "version of ", "docstring of ", "names in ", "imports of ")


class CellKey(NamedTuple):
    """The key of a run of a cell, and what it is made of."""

    owner: str
    key: str
    parts: dict[str, str]


class Result(NamedTuple):
    """What a cell left behind."""

    variables: dict[str, Any]
    output: list[dict[str, Any]]
    attrs: dict[str, Any]


def cell_key(
    cell: Cell,
    namespace: Mapping[str, Any],
    *,
    name: str | None = None,
    keep: Iterable[str] = (),
    ignore: Iterable[str] = (),
    quiet: bool = False,
) -> CellKey:
    """Give the key of a cell, before it runs.

    Raises
    ------
    NotStorable
        Naming the variable whose content can't be told.
    """
    parts = parts_of(cell, namespace, ignore)
    owner = f"cells.{name}" if name else "cells"
    about = [LAYOUT, owner, cell.text, repr(quiet), repr(sorted(keep)), repr(sorted(ignore))]
    pieces = [part for name in sorted(parts) for part in (name, parts[name])]
    code = hexdigest(cell.text.encode("utf-8", "surrogatepass"))
    raw = join(b"cell", [piece.encode("utf-8", "surrogatepass") for piece in [*about, *pieces]])
    return CellKey(owner, hexdigest(raw), {**parts, "code of this cell": code})


def parts_of(cell: Cell, namespace: Mapping[str, Any], ignore: Iterable[str] = ()) -> dict[str, str]:
    """Digest everything that a cell reads: variables, functions, modules, versions."""
    walk = Walk(ignore, docs=cell.docs)
    walk.reads(cell.reads, namespace)
    walk.importing(cell.imports, None)
    return walk.finish()


def mutated(before: Mapping[str, str], after: Mapping[str, str], assigned: Iterable[str]) -> list[str]:
    """Name what a cell changed in place: values that it reads and that are others after it ran."""
    own = set(assigned)
    found = []
    for part, known in before.items():
        name = part.removeprefix("__main__.")
        if not part.startswith(_NOT_VALUES) and name not in own and after.get(part, known) != known:
            found.append(name)
    return found


def left(
    cell: Cell,
    inputs: tuple[Mapping[str, str], Mapping[str, str]],
    before: Mapping[str, Any],
    space: Mapping[str, Any],
    *,
    keep: Iterable[str],
    ignore: Container[str],
    hidden: Container[str],
) -> list[str]:
    """Name the variables that a cell leaves behind.

    Parameters
    ----------
    cell : Cell
    inputs : tuple of two mappings
        The parts of what the cell reads, before and after it ran.
    before, space : mapping
        The variables before and after.
    keep : iterable of str
        The ones wanted; without any all that were assigned, also by what the cell calls.
    ignore : container of str
        The ones that are left out unless they are wanted.
    hidden : container of str
        Variables of the shell's own.

    Raises
    ------
    NotStorable
        If something could not be restored.
    """
    stale = [name for name in cell.assumed if name in before and space.get(name) is before[name]]
    if stale:
        raise NotStorable(
            f"{stale[0]!r} may come from before the cell: assign it in front of the loop", key=stale[0]
        )
    missing = [name for name in keep if name not in space]
    if missing:
        raise NotStorable(f"the cell has not assigned {missing[0]!r}", key=missing[0])
    defined = {name for node in cell.definitions for name in _defined(node)}
    changed = mutated(*inputs, {*cell.writes, *defined})
    unseen = [name for name in changed if name not in space]
    if unseen:
        raise NotStorable(f"the cell changes {unseen[0]} in place, which can't be restored", key=unseen[0])
    rebound = [name for name, value in space.items() if before.get(name, MISSING) is not value]
    others = [name for name in rebound if name not in defined and not _is_own(name, hidden)]
    assigned = [*(name for name in cell.writes if name in space), *others]
    wanted = list(keep) or [name for name in assigned if name not in ignore]
    return list(dict.fromkeys([*wanted, *changed]))


def _defined(statement: ast.stmt) -> Iterable[str]:
    """Name what a definition binds, the names behind the star of an import included."""
    names = bound_names(statement)
    if isinstance(statement, ast.ImportFrom) and "*" in names and statement.module in sys.modules:
        return vars(sys.modules[statement.module])
    return names


def _is_own(name: str, hidden: Container[str]) -> bool:
    return name in hidden or (name.startswith("__") and name.endswith("__"))


def result(
    names: list[str],
    space: Mapping[str, Any],
    before: Mapping[str, Any],
    *,
    reads: Iterable[str],
    ignore: Iterable[str],
    shown: tuple[Any, ...],
) -> Result:
    """Put together what a cell leaves behind: each object once, and its own value if it was shown."""
    kept = {name: space[name] for name in names} | ({SHOWN: shown[0]} if shown else {})
    keyed = {name: before[name] for name in reads if name in before and name not in ignore}
    twins, in_place = identity.same(kept, {**space, **kept}, keyed)
    attrs = {"variables": names, "same": twins, "in_place": in_place}
    return Result({name: value for name, value in kept.items() if name not in twins}, [], attrs)


def load(store: Store, key: CellKey) -> Result | None:
    """Read the result of a cell; None if there is none, or if a part of it is damaged."""
    place = entries.entry_key(key.owner, key.key)
    found = entries.fetch(store, place)
    if found is None:
        return None
    variables = {}
    for name in found.attrs["stored"]:
        value = entries.fetch(store, (*place, VARIABLES, name))
        if value is None:
            return None
        variables[name] = value.value
    for name, module in found.attrs["modules"].items():
        variables[name] = importlib.import_module(module)
    return Result(variables, media.from_json(found.value.tobytes()), found.attrs)


def save(
    store: Store,
    key: CellKey,
    result: Result,
    optional: Iterable[str] = (),
) -> int:
    """Store the result of a cell, all or nothing.

    Parameters
    ----------
    store : Store
    key : CellKey
    result : Result
    optional : iterable of str
        Variables that are left out if they can't be stored.

    Returns
    -------
    int
        Size of variables and output in bytes.

    Raises
    ------
    NotStorable
        Naming the variable; nothing is written.
    """
    import numpy as np

    place = entries.entry_key(key.owner, key.key)
    text = np.frombuffer(media.to_json(result.output).encode("utf-8", "surrogatepass"), np.uint8)
    modules = {
        name: value.__name__
        for name, value in result.variables.items()
        if isinstance(value, types.ModuleType)
    }
    with store.transaction():
        if place in store:
            store.delete(place)
        sizes = {}
        for name, value in result.variables.items():
            if name not in modules:
                size = _keep(store, (*place, VARIABLES, name), name, value, optional)
                sizes.update({} if size is None else {name: size})
        lost = result.variables.keys() - sizes.keys() - modules.keys()
        for name, other in result.attrs["same"].items():
            if other in lost:
                raise NotStorable(f"the variable {name!r} is {other!r}, which can't be stored", key=name)
        total = sum(sizes.values())
        attrs = {
            **result.attrs,
            "variables": [name for name in result.attrs["variables"] if name not in lost],
            "shown": SHOWN in sizes or SHOWN in modules or SHOWN in result.attrs["same"],
            "stored": list(sizes),
            "modules": modules,
            "total": total,
            "parts": key.parts,
        }
        return total + entries.keep(store, place, text, attrs)


def _keep(store: Store, place: Key, name: str, value: Any, optional: Iterable[str]) -> int | None:
    try:
        return entries.keep(store, place, value, {"variable": name})
    except NotStorable as error:
        if name in optional:
            return None
        what = f"the variable {name!r} can't be stored; leave it out with '-x {name}', or: {error}"
        raise NotStorable(what, key=name) from error


def clear(store: Store) -> int:
    """Delete the results of all cells; returns how many there were."""
    owners = [owner for owner in _owners(store) if owner == "cells" or owner.startswith("cells.")]
    count = sum(1 for owner in owners for _ in entries.listed(store, owner))
    for owner in owners:
        store.delete((entries.PREFIX, owner))
    return count


def listed(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """List the owners and attributes of all entries, those of functions included."""
    return [(owner, attrs) for owner in _owners(store) for _, attrs in entries.listed(store, owner)]


def _owners(store: Store) -> list[str]:
    try:
        return list(store.children((entries.PREFIX,)))
    except NotFound:
        return []
