"""The results of notebook cells: key, variables and output, in a store.

An entry is the record at ``("cache", "cells", <key>)`` (``"cells.<name>"`` for a named cell): the output of
the cell as JSON text in bytes, with the attributes of every entry and the cell's source. Its variables are
records of their own below ``"variables"``.
"""

from __future__ import annotations

import copy
import importlib
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import media
from datastore_lab.cache import entries, sources
from datastore_lab.cache.hashing import hexdigest, join
from datastore_lab.cache.key import LAYOUT
from datastore_lab.cache.walk import Walk
from datastore_lab.errors import NotFound, NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.reading import Cell
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

VARIABLES = "variables"

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
    text = sources.dump(copy.deepcopy(cell.tree))
    about = [LAYOUT, owner, text, repr(quiet), repr(sorted(keep)), repr(sorted(ignore))]
    pieces = [part for name in sorted(parts) for part in (name, parts[name])]
    code = hexdigest(text.encode("utf-8", "surrogatepass"))
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


def load(store: Store, key: CellKey) -> Result | None:
    """Read the result of a cell; None if there is none, or if a part of it is damaged."""
    place = entries.entry_key(key.owner, key.key)
    found = entries.fetch(store, place)
    if found is None:
        return None
    variables = {}
    for name in found.attrs["variables"]:
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
        total = sum(sizes.values())
        attrs = {
            **result.attrs,
            "variables": list(sizes),
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
        raise NotStorable(f"the variable {name!r} can't be stored: {error}", key=name) from error


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
