"""What a run of a notebook cell depends on, and what it leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Collection, Container, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.cache import components, identity
from datastore_lab.cache.files import digest_files
from datastore_lab.cache.guards import MISSING
from datastore_lab.cache.hashing import hexdigest, immutable, join
from datastore_lab.cache.key import LAYOUT
from datastore_lab.cache.names import WHOLE
from datastore_lab.cache.views import views
from datastore_lab.cache.walk import CELL, Walk, surface
from datastore_lab.errors import NotFound, NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.guards import Guards
    from datastore_lab.cache.reading import Cell

SHOWN = "value of this cell"
"""The name, which no variable can have, under which the value that the cell showed is kept."""

CODE = "code of this cell"

_OPAQUE = ("eval", "exec", "globals", "__import__")
"""What reads variables that no one can see in the code: allowed where the user has named them."""


class Wish(NamedTuple):
    """What the user says about a cell, as far as its key hangs on it.

    Attributes
    ----------
    name : str, optional
        Keeps the results of the cell apart from those of others.
    keep : tuple of str
        Variables to keep; none means all.
    inputs : tuple of str
        Variables that count although the cell does not name them.
    ignore : tuple of str
        Names that do not count.
    files : tuple of str
        Paths of files whose content counts; may hold ``*`` and ``?``.
    tag : str, optional
        Anything else that tells results apart.
    """

    name: str | None = None
    keep: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    tag: str | None = None


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


class Inputs:
    """Everything that a cell reads, looked at before every run.

    Parameters
    ----------
    cell : Cell
    wish : Wish

    Attributes
    ----------
    named : mapping of str to object
        The local code that was reached last, by label.
    """

    def __init__(self, cell: Cell, wish: Wish) -> None:
        self.cell, self.wish = cell, wish
        self._known: tuple[Mapping[str, Any], dict[str, str], Guards] | None = None
        self.named: Mapping[str, Any] = {}

    def key(self, space: Mapping[str, Any], *, quiet: bool = False) -> CellKey:
        """Give the key of the cell, before it runs.

        Raises
        ------
        NotStorable
            Naming the variable whose content can't be told.
        NotFound
            Naming a file or a variable that was named and is not there.
        """
        wish = self.wish
        if self.cell.opaque is not None and not wish.inputs:
            raise NotStorable(
                f"{CELL} uses {self.cell.opaque}, so the cache can't tell what it reads; name that with -i",
                key=self.cell.opaque,
            )
        parts = self._parts(space) | digest_files(wish.files)
        owner = f"cells.{wish.name}" if wish.name else "cells"
        given = [repr(quiet), *(repr(sorted(names)) for names in (wish.keep, wish.inputs, wish.ignore))]
        pieces = [piece for name in sorted(parts) for piece in (name, parts[name])]
        raw = join(
            b"cell",
            [_raw(piece) for piece in (LAYOUT, owner, self.cell.text, repr(wish.tag), *given, *pieces)],
        )
        tag = {} if wish.tag is None else {"tag of this cell": wish.tag}
        return CellKey(owner, hexdigest(raw), {**parts, **tag, CODE: hexdigest(_raw(self.cell.text))})

    def _parts(self, space: Mapping[str, Any]) -> dict[str, str]:
        known = self._known
        if known is None or known[0] is not space or not self._all_imported() or not known[2].hold():
            self._known = known = (space, *self.walk(space))
        return known[1]

    def _all_imported(self) -> bool:
        """Tell whether every module that the cell imports is there: one that is missing may appear."""
        return all(item.module in sys.modules for item in self.cell.imports if not item.level)

    def walk(self, space: Mapping[str, Any]) -> tuple[dict[str, str], Guards]:
        """Digest everything that the cell reads: variables, functions, modules, versions."""
        for name in self.wish.inputs:
            if name not in space:
                raise NotFound(f"there is no variable {name!r}, which -i names", key=name)
        seen = _OPAQUE if self.wish.inputs else ()
        walk = Walk((*self.wish.ignore, *seen), docs=self.cell.docs)
        walk.reads({**self.cell.reads, **dict.fromkeys(self.wish.inputs, WHOLE)}, space)
        walk.importing(self.cell.imports, None)
        parts, self.named = walk.finish(), dict(walk.named())
        return parts, walk.guards

    def before(self, space: Mapping[str, Any]) -> Before:
        """Take down how things are before the cell runs."""
        parts = self._parts(space)
        assert self._known is not None
        guards = self._known[2]
        functions = [(item[0], dict(vars(item[0])), item[2]) for item in guards.functions]
        named = {*self.cell.reads, *(part.removeprefix("__main__.") for part in parts)}
        read = {name: space[name] for name in named if name in space and name not in self.wish.ignore}
        return Before(dict(space), parts, read, identity.Origins(read), functions, list(guards.sizes))


class Before(NamedTuple):
    """How things were before a cell ran.

    Attributes
    ----------
    space : dict
        The variables.
    parts : dict of str to str
        Digests of what the cell reads.
    read : dict
        The variables among that.
    origins : Origins
        Where the objects lie that they hold.
    functions : list of tuple
        Every function that it reaches, with its attributes and defaults.
    sizes : list of tuple
        The namespace of every local class and module that it reaches, with its size.
    """

    space: dict[str, Any]
    parts: dict[str, str]
    read: dict[str, Any]
    origins: identity.Origins
    functions: list[tuple[Any, dict[str, Any], Any]]
    sizes: list[tuple[Mapping[str, Any], int]]


class Left:
    """What a cell leaves behind.

    Parameters
    ----------
    inputs : Inputs
    before : Before
    space : mapping
        The variables afterwards.
    hidden : container of str
        Variables of the shell's own.
    history : collection of int
        The ``id`` of what the shell still refers to because it was shown.
    """

    def __init__(
        self,
        inputs: Inputs,
        before: Before,
        space: Mapping[str, Any],
        hidden: Container[str] = (),
        history: Collection[int] = (),
    ) -> None:
        self.inputs, self.before, self.space, self.hidden = inputs, before, space, hidden
        self.cell, self.wish, self.history = inputs.cell, inputs.wish, history
        self.dropped: list[str] = []

    def names(self) -> list[str]:
        """Name the variables that are to be kept.

        Raises
        ------
        NotStorable
            If something could not be restored.
        """
        changed = self._changed()
        self.dropped = self._dropped()
        self._check(changed)
        keep = self.wish.keep
        rebound = [
            name for name, value in self.space.items() if self.before.space.get(name, MISSING) is not value
        ]
        defined = self._defined()
        others = [name for name in rebound if name not in defined and not self._is_own(name)]
        assigned = [*(name for name in self.cell.writes if name in self.space), *others]
        wanted = list(keep) or [name for name in assigned if name not in self.wish.ignore]
        return list(dict.fromkeys([*wanted, *changed]))

    def deleted(self) -> list[str]:
        """Name the variables that are no longer there."""
        return [name for name in (*self.cell.writes, *self.before.space) if name not in self.space]

    def _changed(self) -> list[str]:
        """Name what the cell changed in place: values that it reads and that are others after it ran."""
        after, _ = self.inputs.walk(self.space)
        own = {*self.cell.writes, *self._defined()}
        found = []
        for part, known in self.before.parts.items():
            name = part.removeprefix("__main__.")
            if components.is_variable(part) and name not in own and after.get(part, known) != known:
                found.append(name)
        return found

    def _dropped(self) -> list[str]:
        """Name the variables whose object the cell changed in place before it bound or deleted the name."""
        found = []
        for part, known in self.before.parts.items():
            name = part.removeprefix("__main__.")
            if name in self.before.read and not _is_same(name, self.space, self.before.read):
                old = self.before.read[name]
                if components.is_variable(part) and not immutable(old) and _digest(old, name) != known:
                    found.append(name)
        return found

    def _check(self, changed: list[str]) -> None:
        cell, space = self.cell, self.space
        stale = [name for name in cell.assumed if _is_same(name, space, self.before.space)]
        if stale:
            _refuse(stale[0], "may come from before the cell: assign it in front of the loop")
        for name in self.wish.keep:
            if name not in space:
                raise NotStorable(f"the cell has not assigned {name!r}", key=name)
        for name in changed:
            if name not in space:
                raise NotStorable(f"the cell changes {name} in place, which can't be restored", key=name)
        self._check_code()
        for taken in cell.definitions.taken:
            moved = taken.name in cell.writes and not taken.steady
            computed = taken.name in cell.writes and not taken.itself and not immutable(space.get(taken.name))
            if moved or computed or taken.name in changed:
                raise NotStorable(
                    f"{taken.by} takes {taken.name!r} as it is where it is defined, and the cell may change"
                    f" it after that: put the definition of {taken.by} into a cell of its own",
                    key=taken.by,
                )

    def _check_code(self) -> None:
        """Refuse attributes that the cell has given to functions, classes and modules."""
        for function, known, defaults in self.before.functions:
            if _others(vars(function), known) or function.__defaults__ is not defaults:
                name = function.__qualname__
                raise NotStorable(f"the cell changes the function {name}, which can't be restored", key=name)
        for space, size in self.before.sizes:
            if len(space) != size:
                raise NotStorable(
                    "the cell gives attributes to a class or a module, or takes some, which can't be restored"
                )

    def _defined(self) -> set[str]:
        """Name what definitions bind, the names behind the star of an import included."""
        found = set(self.cell.definitions.names)
        for item in self.cell.imports:
            if () in item.chains and "*" in found and item.module in sys.modules:
                found.update(vars(sys.modules[item.module]))
        return found

    def _is_own(self, name: str) -> bool:
        return name in self.hidden or (name.startswith("__") and name.endswith("__"))

    def result(self, names: list[str], shown: tuple[Any, ...]) -> Result:
        """Put together what is left behind: each object once, and the cell's own value if it was shown."""
        kept = {name: self.space[name] for name in names} | ({SHOWN: shown[0]} if shown else {})
        twins, in_place = identity.same(kept, {**self.space, **kept}, self.before.read)
        variables = {name: value for name, value in kept.items() if name not in twins}
        ties = self.before.origins.ties(variables, self._altered(in_place))
        attrs = {
            "variables": names,
            "same": twins,
            "in_place": in_place,
            "ties": ties,
            "dropped": self._gone(ties),
            "views": views(variables, self.before.read, in_place),
            "deleted": self.deleted(),
        }
        return Result(variables, [], attrs)

    def _altered(self, in_place: list[str]) -> set[str]:
        """Name the variables of before whose object the cell has changed, by whichever of its names."""
        read = self.before.read
        changed = {id(read[name]) for name in (*in_place, *self.dropped)}
        return {name for name, value in read.items() if id(value) in changed}

    def _gone(self, ties: list[identity.Tie]) -> list[str]:
        """Name the variables whose object the cell changed and left behind, so that a hit can't change it.

        Raises
        ------
        NotStorable
            If something else holds such an object, and would show the change.
        """
        read, origins = self.before.read, self.before.origins
        restored = {origin for kind, _, origin in ties if kind == "in"}
        gone = [name for name in self.dropped if origins.path(read[name]) not in restored]
        known = [*map(id, (*self.before.space.values(), *read.values(), *origins.objects)), *self.history]
        for name in gone:
            if identity.held(read[name], known):
                raise NotStorable(f"the cell {identity.HELD.format(name)}", key=name)
        return gone


def _digest(value: Any, name: str) -> str | None:
    try:
        return surface(value, name).digest
    except NotStorable:  # (it can't be told any more, so it is something else now)
        return None


def _is_same(name: str, space: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return name in before and space.get(name) is before[name]


def _others(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return len(now) != len(before) or any(before.get(name, MISSING) is not obj for name, obj in now.items())


def _refuse(name: str, what: str) -> None:
    raise NotStorable(f"{name!r} {what}", key=name)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
