"""One run of a cached cell: looked up, restored, or computed and stored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from datastore_lab.cache import cell_store, chance, entries, identity, views
from datastore_lab.cache.cells import SHOWN, CellKey, Left, Result
from datastore_lab.cache.interrupts import noticing
from datastore_lab.cache.shelf import expired
from datastore_lab.errors import LabError, NotFound, NotStorable, ReadOnly
from datastore_lab.notebook.caching import unseen, words
from datastore_lab.notebook.caching.capture import Recorder, replay
from datastore_lab.notebook.caching.places import DEFAULT
from datastore_lab.notebook.caching.running import run

if TYPE_CHECKING:
    from datastore_lab.cache.shelf import Shelf
    from datastore_lab.notebook.caching.grammar import Request
    from datastore_lab.notebook.caching.prepared import Prepared
    from datastore_lab.notebook.caching.session import Session


class CellRun:
    """One run of one cell.

    Parameters
    ----------
    session : Session
    request : Request
    prepared : Prepared
    shelf : Shelf
    """

    def __init__(self, session: Session, request: Request, prepared: Prepared, shelf: Shelf) -> None:
        self.session, self.request, self.prepared, self.shelf = session, request, prepared, shelf
        self.shell = session.shell

    def go(self) -> None:
        """Restore what the cell did, or run it."""
        __tracebackhide__ = True
        key = self._key()
        if self.request.dry_run:
            if key is not None:
                self._foresee(key)
        elif key is None:
            run(self.shell, self.prepared.body, self.prepared.text)
        elif not self._hit(key):
            with self.shelf.turn(key.owner, key.key, self._waits) as turn:
                if not turn.waited or not self._hit(key):
                    self._compute(key)

    def _waits(self, who: str) -> None:
        self._say(f"… waiting for {who}, which runs this cell")

    # -- looking up -----------------------------------------------------------------------------------

    def _key(self) -> CellKey | None:
        """Give the key of the cell; None, and a line that says why, if there can't be one."""
        if self.prepared.cell is None:
            return None
        try:
            inputs = self.prepared.inputs(self.request.wish)
            return inputs.key(self.shell.user_ns, quiet=self.prepared.quiet)
        except NotStorable as error:
            self._say(f"✗ not cached: {_in_options(error)}")
            return None
        except NotFound as error:  # (a file or a variable that an option names)
            raise UsageError(f"%%cache: {error}") from error

    def _hit(self, key: CellKey) -> bool:
        """Look the result up and restore it; False if the cell must run."""
        found = None if self.request.force else self._found(key)
        return found is not None and self._restored(key, found)

    def _found(self, key: CellKey) -> Result | None:
        """Look a result up; None, and a line that says why, if it must not be used."""
        found = cell_store.load(self.shelf, key, copy=self.request.copy)
        reason = None if found is None else self._unfit(found.attrs)
        if reason is None:
            return found
        self._say(f"{reason}, the cell runs again")
        return None

    def _unfit(self, attrs: dict[str, Any]) -> str | None:
        """Say why a stored result must not be used; None if it may."""
        if expired(attrs, self.request.ttl):
            return f"the result is too old ({words.ago(entries.age(attrs))})"
        if self.request.output and not attrs["output"]:
            return "the result was stored without output"
        space, dropped = self.shell.user_ns, attrs["dropped"]
        known = [*(id(space[name]) for name in dropped), *_history(self.shell)] if dropped else []
        for name in dropped:
            if identity.held(space[name], known):
                return f"it {identity.HELD.format(name)}"
        other = chance.other(attrs["random"])
        return None if other is None else f"{other} is not in the state that it was in"

    def _foresee(self, key: CellKey) -> None:
        """Say what would happen."""
        self.session.pending = (self, key)
        attrs = cell_store.attributes(self.shelf, key)
        unfit = None if attrs is None else self._unfit(attrs)
        if attrs is not None and unfit is None:
            print(words.hit(attrs).replace("✓ cached", "✓ would hit: cached"))
            return
        reasons = self.session.against(self, key) if unfit is None else [unfit]
        print("\n".join(["● would run, because", *(f"  {reason}" for reason in reasons)]))

    # -- restoring ------------------------------------------------------------------------------------

    def _restored(self, key: CellKey, found: Result) -> bool:
        """Put back what the cell left behind; False if its definitions no longer run."""
        space, attrs = self.shell.user_ns, found.attrs
        before = dict(space)
        space.update(found.variables)
        definitions = self.prepared.cell.definitions  # type: ignore[union-attr]
        try:
            self.prepared.define()
        except Exception as error:  # (definitions are the user's code)
            space.clear()
            space.update(before)
            self._say(f"✗ what is cached can't be restored, the cell runs again: {error!r}")
            return False
        if definitions.calls:  # they may have changed what was just restored
            found = cell_store.load(self.shelf, key, copy=self.request.copy) or found
        if not self.request.copy:
            self.session.restored.update(found.variables)
        ties = [(kind, tuple(path), tuple(other)) for kind, path, other in attrs["ties"]]
        identity.bind(space, before, found.variables, attrs["same"], attrs["in_place"], ties=ties)
        found_views = [(kind, tuple(path), tuple(base), *rest) for kind, path, base, *rest in attrs["views"]]
        views.renew(space, before, found_views)
        for name in attrs["deleted"]:
            space.pop(name, None)
        self._show(found)
        self.session.hit(found)
        self._say(words.hit(attrs))
        return True

    def _show(self, found: Result) -> None:
        """Show the output again, and the value of the cell."""
        space, attrs = self.shell.user_ns, found.attrs
        shown = space.pop(SHOWN) if attrs["shown"] else None
        chance.move(attrs["random"])
        if self.request.output:
            replay(self.shell, found.output)
            if attrs["shown"]:
                self.shell.displayhook.update_user_ns(shown)

    # -- computing ------------------------------------------------------------------------------------

    def _compute(self, key: CellKey) -> None:
        __tracebackhide__ = True
        inputs = self.prepared.inputs(self.request.wish)
        before, states = inputs.before(self.shell.user_ns), chance.now()
        about = self.session.describe(before.parts)
        recorder = Recorder(self.shell)
        begin = time.perf_counter()
        with recorder.recording(), noticing() as interrupts:
            value = run(self.shell, self.prepared.body, self.prepared.text)
        seconds = time.perf_counter() - begin
        self.session.missed(self, key)
        reason = "interrupted" if interrupts.seen else self._not_wanted(seconds)
        if reason:
            self._say(f"● ran {words.spent(seconds)} · not stored: {reason}")
            return
        attrs = {
            "function": key.owner,
            "created": entries.now(),
            "seconds": seconds,
            "source": self.prepared.body,
            "random": chance.moved(states, chance.now(), seeds=inputs.cell.seeds),
            "inputs": about,
            "output": self.request.output,
            "wish": {
                name: value for name, value in self.request.wish._asdict().items() if name != "name" and value
            },
            **({} if self.request.ttl is None else {"ttl": self.request.ttl}),
        }
        hidden = {*self.shell.user_ns_hidden, "_exit_code"}
        left = Left(inputs, before, self.shell.user_ns, hidden, _history(self.shell))
        self._store(key, left, attrs, recorder, value)

    def _not_wanted(self, seconds: float) -> str | None:
        if self.request.readonly:
            return "read only"
        if seconds < self.request.min_time:
            return f"faster than {words.spent(self.request.min_time)}"
        return None

    def _store(self, key: CellKey, left: Left, attrs: dict[str, Any], recorder: Recorder, value: Any) -> None:
        wish, keeps_output = self.request.wish, self.request.output
        try:
            names = left.names()
            shown = (value,) if recorder.has_result and keeps_output else ()
            result = left.result(names, shown)
            output = recorder.items if keeps_output else []
            optional = {SHOWN, *(() if wish.keep else left.cell.passing)}
            result = result._replace(output=output, attrs={**attrs, **result.attrs})
            size = self._save(key, result, optional)
        except ReadOnly:
            self._say(f"● ran {words.spent(attrs['seconds'])} · not stored: read only")
        except (LabError, OSError) as error:
            self._say(f"✗ ran {words.spent(attrs['seconds'])} · not cached: {_in_options(error)}")
        else:
            self._say(words.ran(attrs["seconds"], names, size, self._unseen(left)))

    def _unseen(self, left: Left) -> str | None:
        commands = left.cell.commands
        if commands and not self.request.wish.files:
            return f"depends on {commands[0]}: --file PATH lets the content of files count"
        return unseen.advice(self.prepared.text, left.inputs.named, self.shell.user_ns, self.request)

    def _save(self, key: CellKey, result: Result, optional: set[str]) -> int:
        try:
            return cell_store.save(self.shelf, key, result, optional)
        except (NotStorable, ValueError):
            raise
        except (LabError, OSError) as error:
            memory = self.session.places.instead(self.shelf)
            if memory is None:
                raise
            print(f"✗ {DEFAULT} can't be used, results are kept in memory for this session: {error}")
            self.shelf = memory
            return cell_store.save(memory, key, result, optional)

    def _say(self, text: str) -> None:
        if not self.request.silent:
            print(text)


def _history(shell: Any) -> list[int]:
    """Give the numbers of the objects that the shell still refers to because they were shown."""
    last = getattr(shell.last_execution_result, "result", None)
    named = (value for name, value in shell.user_ns.items() if name.startswith("_"))
    return [*map(id, named), *map(id, shell.user_ns.get("_oh", {}).values()), id(last)]


def _in_options(error: Exception) -> str:
    """Name the way out as it is written in a notebook."""
    return str(error).replace("ignore_kwargs", "-x")
