"""The results of notebook cells in a store.

An entry is the record at ``("cache", "cells", <key>)`` (``"cells.<name>"`` for a named cell): a mapping of
the output of the cell, as JSON text in bytes, and of its small variables, with the attributes of every entry
and the cell's source. Large variables are records of their own below ``"variables"``. Where a result hangs on
the state of generators of random numbers, the entry only names these (``hangs_on``), and the result lies
under a key that holds the states too.
"""

from __future__ import annotations

import importlib
import types
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import media, objects
from datastore_lab.cache import chance, components, entries
from datastore_lab.cache.cells import CODE, SHOWN, CellKey, Result
from datastore_lab.cache.hashing import hexdigest, join
from datastore_lab.cache.shelf import expired
from datastore_lab.errors import NotFound, NotStorable

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from datastore_lab.cache.shelf import Shelf
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

HANGS_ON = "hangs_on"

_LINES = ("IPython.utils.text", "SList")
"""What ``name = !command`` gives: a list that knows some methods more."""

_SMALL = 65536
"""Bytes up to which a variable lies in the record of the cell, so that a hit reads one record."""


class Entry(NamedTuple):
    """One stored result of a cell, without the result."""

    shelf: Shelf
    owner: str
    key: str
    attrs: dict[str, Any]

    @property
    def place(self) -> Key:
        """Where it lies."""
        return entries.entry_key(self.owner, self.key)

    @property
    def name(self) -> str | None:
        """The name that the user gave to the cell."""
        return self.owner.removeprefix("cells.") if self.owner.startswith("cells.") else None

    @property
    def nbytes(self) -> int:
        """Size of variables and output."""
        return int(self.attrs.get("total", 0)) + int(self.attrs["nbytes"])

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return entries.age(self.attrs)

    @property
    def expired(self) -> bool:
        """Whether it is older than it was meant to become."""
        return expired(self.attrs, None)


def load(shelf: Shelf, key: CellKey, *, copy: bool = False) -> Result | None:
    """Read the result of a cell; None if there is none, or if a part of it is damaged.

    Parameters
    ----------
    shelf : Shelf
    key : CellKey
    copy : bool, default False
        Give arrays that can be written to.
    """
    found = shelf.find(key.owner, key.key, copy=copy)
    if found is None:
        return None
    attrs = found.attrs
    if HANGS_ON in attrs:
        return load(shelf, _with_states(key, chance.digests(attrs[HANGS_ON])), copy=copy)
    variables: dict[str, Any] = dict(found.value["variables"])
    for name in attrs["stored"]:
        value = shelf.item(key.owner, key.key, name, copy=copy)
        if value is None:
            return None
        variables[name] = value.value
    for name, module in attrs["modules"].items():
        variables[name] = importlib.import_module(module)
    for name, state in attrs["generators"].items():
        variables[name] = chance.generator_of(state)
    for name in attrs["lines"]:
        variables[name] = importlib.import_module(_LINES[0]).SList(variables[name])
    return Result(variables, media.from_json(found.value["output"]), attrs)


def save(shelf: Shelf, key: CellKey, result: Result, optional: Container[str] = ()) -> int:
    """Store the result of a cell, all or nothing.

    Parameters
    ----------
    shelf : Shelf
    key : CellKey
    result : Result
    optional : container of str
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
    sorted_out = _sort_out(result.variables, optional)
    for name, other in result.attrs["same"].items():
        if other in sorted_out.lost:
            raise NotStorable(f"the variable {name!r} is {other!r}, which can't be stored", key=name)
    shown = {*sorted_out.small, *sorted_out.large, *sorted_out.modules, *result.attrs["same"]}
    attrs = {
        **result.attrs,
        "variables": [name for name in result.attrs["variables"] if name not in sorted_out.lost],
        "shown": SHOWN in shown,
        "stored": list(sorted_out.large),
        "modules": sorted_out.modules,
        "generators": sorted_out.generators,
        "lines": sorted_out.lines,
        "parts": key.parts,
    }
    text = media.to_json(result.output).encode("utf-8", "surrogatepass")
    states = {name: move["from"] for name, move in attrs["random"].items() if move["from"] is not None}
    if states:
        about = {"created": attrs["created"], "variables": attrs["variables"], HANGS_ON: sorted(states)}
        shelf.keep(key.owner, key.key, None, about)
        key = _with_states(key, states)
    value = {"output": text, "variables": sorted_out.small}
    return shelf.keep(key.owner, key.key, value, attrs, items=sorted_out.large)


def attributes(shelf: Shelf, key: CellKey) -> dict[str, Any] | None:
    """Give the attributes of the result of a cell, without reading it; None if there is none."""
    store = shelf.place.reading()
    if store is None or not shelf.has(key.owner, key.key):
        return None
    attrs = entries.about(store, entries.entry_key(key.owner, key.key))
    if HANGS_ON in attrs:
        return attributes(shelf, _with_states(key, chance.digests(attrs[HANGS_ON])))
    return attrs


def _with_states(key: CellKey, states: Mapping[str, str]) -> CellKey:
    """Give the key of a result that hangs on the states of generators of random numbers."""
    pieces = [piece.encode() for name in sorted(states) for piece in (name, states[name])]
    return key._replace(key=hexdigest(join(b"states", [key.key.encode(), *pieces])))


class _Sorted(NamedTuple):
    """Variables by how they are stored."""

    small: dict[str, Any]
    large: dict[str, Any]
    modules: dict[str, str]
    generators: dict[str, Any]
    lines: list[str]
    lost: set[str]


def _sort_out(variables: Mapping[str, Any], optional: Container[str]) -> _Sorted:
    found = _Sorted({}, {}, {}, {}, [], set())
    for name, given in variables.items():
        is_lines = (type(given).__module__, type(given).__qualname__) == _LINES
        value = list(given) if is_lines else given
        found.lines.extend([name] * is_lines)
        if isinstance(value, types.ModuleType):
            found.modules[name] = value.__name__
        elif (state := chance.state_of(value)) is not None:
            found.generators[name] = state
        else:
            size = _size(name, value, optional)
            if size is None:
                found.lost.add(name)
            else:
                (found.small if size <= _SMALL else found.large)[name] = value
    return found


def _size(name: str, value: Any, optional: Container[str]) -> int | None:
    """Give the size of a variable, large if it needs a record of its own; None if it can't be stored."""
    try:
        record = objects.encode(value)
    except NotStorable as error:
        if name in optional:
            return None
        what = f"the variable {name!r} can't be stored; leave it out with '-x {name}', or: {error}"
        raise NotStorable(what, key=name) from error
    plain = record.kind in {"value", "array"}
    return entries.nbytes(record) if plain else _SMALL + 1


def clear(found: Iterable[Entry]) -> None:
    """Delete results."""
    by_shelf: dict[int, list[Entry]] = {}
    for entry in found:
        by_shelf.setdefault(id(entry.shelf), []).append(entry)
    for together in by_shelf.values():
        with together[0].shelf.place.writing() as store, store.transaction():
            for entry in together:
                if entry.place in store:
                    store.delete(entry.place)


def listed(shelf: Shelf) -> list[Entry]:
    """Give the results of cells, oldest first, without reading them."""
    store = shelf.place.reading()
    found = [
        Entry(shelf, owner, key[-1], attrs)
        for owner in ([] if store is None else _owners(store))
        for key, attrs in entries.listed(store, owner)  # type: ignore[arg-type]
        if HANGS_ON not in attrs
    ]
    return sorted(found, key=lambda entry: str(entry.attrs["created"]))


def _owners(store: Store) -> list[str]:
    try:
        owners = list(store.children((entries.PREFIX,)))
    except NotFound:
        return []
    return [owner for owner in owners if owner == "cells" or owner.startswith("cells.")]


def bless(entry: Entry, key: CellKey, source: str) -> None:
    """Take a stored result as that of another version of the code.

    Parameters
    ----------
    entry : Entry
    key : CellKey
        That of the cell as it is now.
    source : str
        The cell as it is now.

    Raises
    ------
    NotStorable
        If values that the cell reads have changed as well: then the result is not the right one.
    """
    if (other := components.different_value(entry.attrs["parts"], key.parts)) is not None:
        text = _difference(other, entry.attrs["parts"].get(other), key.parts.get(other)).text
        raise NotStorable(f"{text}; only changes of code can be accepted", key=other)
    new = entries.entry_key(key.owner, key.key)
    with entry.shelf.place.writing() as store, store.transaction():
        for place in list(store.keys_below(entry.place)):
            store.write((*new, *place[len(new) :]), store.record(place))
        entries.update(store, new, {"parts": key.parts, "source": source, "accepted": entries.now()})


class Difference(NamedTuple):
    """Something in which two keys differ: the part, and words for it."""

    part: str
    text: str


_WORDS = {
    components.CODE_OF: "the code of {} changed",
    components.DOC_OF: "the docstring of {} changed, which is read",
    components.COMPILED: "the compiled module {} is another one",
    components.FILE: "the file {} has other content",
    components.DEFAULT: "the default {} changed",
}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """Say in words how what a cell depends on differs, what weighs most first.

    Examples
    --------
    >>> [found.text for found in differences({"x": "1", "version of numpy": "2.4.5"}, {"x": "2"})]
    ['x has another value', 'numpy 2.4.5 is no longer used']
    """
    found = [
        _difference(name, before.get(name), after.get(name)) for name in components.different(before, after)
    ]
    return sorted(found, key=lambda item: (item.part != CODE, components.is_code(item.part)))


def _difference(part: str, old: str | None, new: str | None) -> Difference:
    name = part.removeprefix("__main__.").replace(" __main__.", " ")
    if part == CODE:
        return Difference(part, "the cell itself was edited")
    if name.startswith(components.VERSION_OF):
        return Difference(part, components.of_version(name, old, new))
    if name.startswith(components.TAG):
        return Difference(part, f"the tag (-V) was {old}, is {new}")
    for prefix, text in _WORDS.items():
        if name.startswith(prefix):
            about = name.removeprefix(prefix)
            changed = text.format(about)
            if new is None or old is None:
                changed = f"{prefix}{about} is {'no longer used' if new is None else 'used now'}"
            return Difference(part, changed)
    if new is None:
        return Difference(part, f"{name} is no longer read")
    return Difference(part, f"{name} is read now" if old is None else f"{name} has another value")


def nearest(found: list[Entry], key: CellKey) -> Entry | None:
    """Give the result whose cell differs least from this one, the newest of several; None without any.

    A result counts if it has the same code, the same name or a variable of the same name.
    """

    def handicap(entry: Entry) -> int:
        same = entry.owner == key.owner != "cells" or entry.attrs["parts"].get(CODE) == key.parts[CODE]
        return 0 if same else 1000

    return components.nearest(((handicap(entry), entry.attrs["parts"], entry) for entry in found), key.parts)
