"""The commands of ``%cache``: what is stored, why a cell would run, what to delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from datastore_lab import units
from datastore_lab.cache import cell_store
from datastore_lab.cache.cells import CellKey, Wish
from datastore_lab.errors import NotFound, NotStorable
from datastore_lab.notebook.caching import words
from datastore_lab.notebook.caching.cell_run import CellRun
from datastore_lab.notebook.caching.grammar import Command, Request
from datastore_lab.notebook.caching.places import name

if TYPE_CHECKING:
    from datastore_lab.cache.cell_store import Entry
    from datastore_lab.cache.shelf import Shelf
    from datastore_lab.notebook.caching.session import Session


class Commands:
    """Carries out the commands of one session.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, command: Command) -> str:
        """Carry out a command; gives what is to be printed."""
        chosen = _Chosen(self.session, command)
        return str(getattr(self, f"_{command.verb}")(chosen))

    # -- looking --------------------------------------------------------------------------------------

    def _ls(self, chosen: _Chosen) -> str:
        parts = []
        for shelf in chosen.shelves:
            found = chosen.on(shelf)
            head = _head(shelf, found)
            parts.append(f"{head}\n{words.table(found)}" if found else head)
        return "\n\n".join(parts)

    def _show(self, chosen: _Chosen) -> str:
        return words.sheet(chosen.newest())

    def _size(self, chosen: _Chosen) -> str:
        return "\n".join(_head(shelf, chosen.on(shelf)) for shelf in chosen.shelves)

    def _stats(self, chosen: _Chosen) -> str:
        counts = self.session.counts
        spent = sum(entry.attrs["seconds"] for entry in chosen.entries)
        return (
            f"this session: {_number(counts['hits'], 'hit')}, {_number(counts['misses'], 'miss')}, "
            f"saved {words.spent(self.session.saved)}\n"
            f"stored: {_count(chosen.entries)}, which took {words.spent(spent)} to make"
        )

    def _why(self, chosen: _Chosen) -> str:
        session = self.session
        if not chosen.names and session.pending is None:
            return (
                "no cell has missed in this session; '%cache why NAME' asks about a variable or a named cell"
            )
        cell, key = self._asked(chosen)
        reasons = session.against(cell, key)
        if chosen.names and cell_store.attributes(cell.shelf, key) is not None:
            return "nothing has changed: the cell would come from the cache"
        return "\n".join(reasons) or "nothing has changed: the result is forced, too old or deleted"

    # -- changing -------------------------------------------------------------------------------------

    def _clear(self, chosen: _Chosen) -> str:
        if not chosen.names and not chosen.named:
            self.session.places.only()
        found = [entry for entry in chosen.entries if _older(entry, chosen.command.older)]
        return _deleted(found)

    def _gc(self, chosen: _Chosen) -> str:
        """Sweep the whole cache, the results of functions included: they share the space."""
        swept = [shelf.gc(chosen.command.older, chosen.command.max_size) for shelf in chosen.shelves]
        count, size = sum(item.entries for item in swept), sum(item.nbytes for item in swept)
        given_back = sum(item.given_back for item in swept)
        back = f", gave {units.format_size(given_back)} back" if given_back else ""
        return f"deleted {_number(count, 'result')} · {units.format_size(size)}{back}"

    def _accept(self, chosen: _Chosen) -> str:
        cell, key = self._asked(chosen)
        if cell_store.attributes(cell.shelf, key) is not None:
            return "nothing to accept: the cell is in the cache as it is"
        related = self.session.related(cell, key)
        nearest = cell_store.nearest(related, key)
        if nearest is None:
            raise UsageError("%cache accept: there is no earlier result of this cell")
        try:
            cell_store.bless(nearest, key, cell.prepared.body)
        except NotStorable as error:
            raise UsageError(f"%cache accept: {error}") from error
        names = words.listed(nearest.attrs["variables"])
        return f"accepted: {names}, made {words.ago(nearest.age)}, is the result of the cell as it is now"

    # -- which cell -----------------------------------------------------------------------------------

    def _asked(self, chosen: _Chosen) -> tuple[CellRun, CellKey]:
        """Give the cell that a command is about: the last that missed, or the one that made a variable."""
        pending = self.session.pending
        if pending is not None and (not chosen.names or _is_about(pending[0], chosen.names)):
            cell, known = pending
            key = cell.prepared.inputs(cell.request.wish).key(
                self.session.shell.user_ns, quiet=cell.prepared.quiet
            )
            return cell, key if key.owner == known.owner else known
        if not chosen.names:
            raise UsageError(
                "%cache: name a variable or a cell, or look at a cell with '%%cache --dry-run' first"
            )
        return self._again(chosen.newest())

    def _again(self, entry: Entry) -> tuple[CellRun, CellKey]:
        """Read the cell of a stored result again, as the variables are now."""
        given: dict[str, Any] = entry.attrs.get("wish", {})
        keep, inputs, ignore, files = (
            tuple(given.get(name, ())) for name in ("keep", "inputs", "ignore", "files")
        )
        wish = Wish(entry.name, keep, inputs, ignore, files, given.get("tag"))
        prepared = self.session.cells.get(entry.attrs["source"])
        cell = CellRun(self.session, Request(None, wish), prepared, entry.shelf)
        try:
            return cell, prepared.inputs(wish).key(self.session.shell.user_ns, quiet=prepared.quiet)
        except (NotStorable, NotFound) as error:
            raise UsageError(f"%cache: {error}") from error


class _Chosen:
    """The stores and results that a command is about."""

    def __init__(self, session: Session, command: Command) -> None:
        places, self.command = session.places, command
        self.names = tuple(word for word in command.targets if not places.is_store(word))
        named = [word for word in command.targets if places.is_store(word)]
        named += [command.place] if command.place else []
        self.named = bool(named)
        self.shelves = [places.shelf(word) for word in named] or places.used()
        found = [entry for shelf in self.shelves for entry in cell_store.listed(shelf)]
        self.entries = [entry for entry in found if not self.names or self._fits(entry)]

    def on(self, shelf: Shelf) -> list[Entry]:
        """Give the results on one shelf."""
        return [entry for entry in self.entries if entry.shelf is shelf]

    def newest(self) -> Entry:
        """Give the newest result of a name."""
        if not self.names:
            raise UsageError(f"%cache {self.command.verb}: name a variable or a cell")
        if not self.entries:
            raise UsageError(
                f"%cache: nothing is stored for {', '.join(self.names)}; '%cache ls' lists what is"
            )
        return self.entries[-1]

    def _fits(self, entry: Entry) -> bool:
        return any(word == entry.name or word in entry.attrs["variables"] for word in self.names)


def _is_about(cell: CellRun, names: tuple[str, ...]) -> bool:
    writes: Any = cell.prepared.cell.writes if cell.prepared.cell else ()
    return any(word == cell.request.wish.name or word in writes for word in names)


def _older(entry: Entry, seconds: float | None) -> bool:
    return seconds is None or entry.age > seconds


def _deleted(found: list[Entry]) -> str:
    size = units.format_size(sum(entry.nbytes for entry in found))
    cell_store.clear(found)
    return f"deleted {_count(found)} · {size}"


def _head(shelf: Shelf, found: list[Entry]) -> str:
    size = units.format_size(sum(entry.nbytes for entry in found))
    return f"{name(shelf)} · {_count(found)} · {size}"


def _count(found: list[Entry]) -> str:
    return _number(len(found), "result")


def _number(count: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{count} {what}{'' if count == 1 else plural}"
