"""``%%cache``: a cell that is run once for everything that it depends on, and shown again after that."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import contextvars
import datetime as dt
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.core.magic_arguments import MagicArgumentParser

from datastore_lab import units
from datastore_lab.cache import cells, chance, entries, identity
from datastore_lab.cache.reading import Cell, read_cell
from datastore_lab.errors import LabError, NotStorable
from datastore_lab.notebook.cache_capture import Recorder, patched, replay
from datastore_lab.store import Store, open_store

if TYPE_CHECKING:
    from datastore_lab.cache.cells import CellKey, Result

DEFAULT = "datastore_lab_cache.h5"
"""The store of cells that name no other one; in the working folder, which in Jupyter is the notebook's."""

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".zarr")


class _Request(NamedTuple):
    """What stands behind ``%%cache``."""

    store: Store
    keep: list[str]
    name: str | None
    ignore: list[str]
    force: bool
    readonly: bool
    silent: bool


@magics_class
class CacheMagics(Magics):
    """The magics ``%%cache`` and ``%cache``."""

    shell: Any  # (declared optional by its base, but magics always belong to a shell)

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._stores: dict[str, Store] = {}
        self._in_memory: Store | None = None

    @line_cell_magic
    def cache(self, line: str, cell: str | None = None) -> None:
        """Run a cell, or restore what it did when nothing that it depends on has changed.

        ``%%cache [STORE] [VARS...] [-n NAME] [-x NAME,..] [-f] [-r] [-s] [--store PATH]``

        STORE is a variable that holds a Store, or a path that ends in .h5, .hdf5 or .zarr; without one the
        results lie in ``datastore_lab_cache.h5`` in the working folder. VARS are the variables to keep;
        without them all that the cell assigns or changes in place are kept. Output, the seeded state of
        ``random`` and ``numpy.random``, imports, functions and classes come back as well; what else a cell
        changes (settings of a library, the environment, the working folder, files) does not: do that in a
        cell of its own.

        -n, --name      Keep the cell's results under a name of their own.
        -x, --ignore    Variables that the results do not depend on and that are not kept, as a figure or a
                        progress bar; separated by commas.
        -f, --force     Run the cell whatever is stored, and store what it gives.
        -r, --readonly  Use what is stored, store nothing.
        -s, --silent    No status line.
        --store         Path or URL of the store, whatever it ends in.

        ``%cache ls [STORE]`` lists what is stored, ``%cache clear [STORE]`` deletes the results of cells.
        """
        __tracebackhide__ = True
        if cell is None:
            self._line(line)
        else:
            self._cell(self._request(line), cell)

    # -- the cell -------------------------------------------------------------------------------------

    def _cell(self, request: _Request, body: str) -> None:
        __tracebackhide__ = True
        text = self.shell.transform_cell(body)
        cell = self._read(text)
        key = None if cell is None else self._key(request, cell, text)
        if cell is None or key is None:
            self._run(body, text)
            return
        found = None if request.force else self._found(request, key)
        if found is None or not self._restored(request, cell, text, body, found):
            self._compute(request, cell, key, text, body)

    def _read(self, text: str) -> Cell | None:
        """Analyse a cell; None if it is not Python: running it shows the error as without the magic."""
        try:
            return read_cell(text, self.shell.user_ns, self.shell.transform_cell)
        except SyntaxError:
            return None

    def _key(self, request: _Request, cell: Cell, text: str) -> CellKey | None:
        """Give the key of a cell; None, and a line that says why, if there can't be one."""
        try:
            return self._key_of(request, cell, text)
        except NotStorable as error:
            self._say(request, f"✗ not cached: {error}".replace("ignore_kwargs", "-x"))
            return None

    def _key_of(self, request: _Request, cell: Cell, text: str) -> CellKey:
        return cells.cell_key(
            cell,
            self.shell.user_ns,
            name=request.name,
            keep=request.keep,
            ignore=request.ignore,
            quiet=self.shell.displayhook.semicolon_at_end_of_expression(text),
        )

    def _found(self, request: _Request, key: CellKey) -> Result | None:
        """Look a result up; None, and a line that says why, if it hangs on other random numbers."""
        found = cells.load(request.store, key)
        other = None if found is None else chance.other(found.attrs["random"])
        if other is None:
            return found
        self._say(request, f"{other} is not in the state that it was in, the cell runs again")
        return None

    def _restored(self, request: _Request, cell: Cell, text: str, body: str, found: Result) -> bool:
        """Put back what the cell left behind; False if its definitions no longer run."""
        space = self.shell.user_ns
        before = dict(space)
        space.update(found.variables)
        try:
            self._define(cell, text, body)
        except Exception as error:  # (definitions are the user's code)
            space.clear()
            space.update(before)
            self._say(request, f"✗ what is cached can't be restored, the cell runs again: {error!r}")
            return False
        identity.bind(space, before, found.variables, found.attrs["same"], found.attrs["in_place"])
        for name in found.attrs["deleted"]:
            space.pop(name, None)
        shown = space.pop(cells.SHOWN) if found.attrs["shown"] else None
        chance.move(found.attrs["random"])
        replay(self.shell, found.output)
        if found.attrs["shown"]:
            self.shell.displayhook.update_user_ns(shown)
        self._say(request, _restored_line(found))
        return True

    def _define(self, cell: Cell, text: str, body: str) -> None:
        """Run the imports, functions and classes of a cell, which are not stored."""
        if not cell.definitions:
            return
        compiler: Any = self.shell.compile
        file = compiler.cache(text, self.shell.execution_count, raw_code=body)
        module = ast.Module(cell.definitions, [])
        with self.shell.builtin_trap:
            exec(compiler(module, file, "exec"), self.shell.user_ns)  # noqa: S102 (the user's own cell)

    def _compute(self, request: _Request, cell: Cell, key: CellKey, text: str, body: str) -> None:
        __tracebackhide__ = True
        before, states = dict(self.shell.user_ns), chance.now()
        recorder = Recorder(self.shell)
        begin = time.perf_counter()
        with recorder.recording():
            value = self._run(body, text)
        seconds = time.perf_counter() - begin
        if request.readonly or not request.store.writable:
            self._say(request, f"● ran {_spent(seconds)} · not stored: read only")
            return
        attrs = {
            "function": key.owner,
            "created": entries.now(),
            "seconds": seconds,
            "source": body,
            "deleted": [name for name in (*cell.writes, *before) if name not in self.shell.user_ns],
            "random": chance.moved(states, chance.now(), seeds=cell.seeds),
        }
        try:
            optional = {cells.SHOWN, *(() if request.keep else cell.passing)}
            names = self._left(request, cell, key, before)
            shown = (value,) if recorder.has_result else ()
            result = cells.result(
                names, self.shell.user_ns, before, reads=cell.reads, ignore=request.ignore, shown=shown
            )
            result = result._replace(output=recorder.items, attrs={**attrs, **result.attrs})
            size = cells.save(request.store, key, result, optional)
        except (LabError, OSError) as error:
            self._say(request, f"✗ ran {_spent(seconds)} · not cached: {error}")
        else:
            listed = ", ".join(names) or "output"
            self._say(request, f"● ran {_spent(seconds)} · stored {listed} · {units.format_size(size)}")

    def _left(self, request: _Request, cell: Cell, key: CellKey, before: dict[str, Any]) -> list[str]:
        shell = self.shell
        after = cells.parts_of(cell, shell.user_ns, request.ignore)
        hidden = {*shell.user_ns_hidden, "_exit_code"}
        return cells.left(
            cell,
            (key.parts, after),
            before,
            shell.user_ns,
            keep=request.keep,
            ignore=request.ignore,
            hidden=hidden,
        )

    # -- running --------------------------------------------------------------------------------------

    def _run(self, body: str, text: str) -> Any:
        """Run a cell as the shell runs any other; its error is raised once, as that of the whole cell.

        Returns
        -------
        object
            The value of the cell.
        """
        __tracebackhide__ = True
        quiet = self.shell.displayhook.semicolon_at_end_of_expression
        with self._errors_unshown(), patched(self.shell.displayhook, quiet=lambda: quiet(text)):
            result = _run_beside(self.shell, body) if self._needs_loop(body) else self.shell.run_cell(body)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            raise error
        return result.result

    def _needs_loop(self, body: str) -> bool:
        """Tell whether the cell awaits something while a loop, the kernel's, runs already in this thread."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return bool(self.shell.should_run_async(body, transformed_cell=self.shell.transform_cell(body)))

    @contextlib.contextmanager
    def _errors_unshown(self) -> Iterator[None]:
        names = ("showtraceback", "showsyntaxerror", "showindentationerror")
        with patched(self.shell, **dict.fromkeys(names, _show_nothing)):
            yield

    # -- options --------------------------------------------------------------------------------------

    def _request(self, line: str) -> _Request:
        options = _parser().parse_intermixed_args(_words(line))
        targets = list(options.targets)
        place = options.store
        if targets and place is None and self._is_store(targets[0]):
            place = targets.pop(0)
        for name in targets:
            if not name.isidentifier():
                raise UsageError(
                    f"%%cache: {name!r} is neither a variable nor a path that ends in one of "
                    f"{', '.join(_SUFFIXES)}; give other places with --store"
                )
        ignore = [name for name in options.ignore.split(",") if name]
        store = self._store(place)
        return _Request(store, targets, options.name, ignore, options.force, options.readonly, options.silent)

    def _is_store(self, text: str) -> bool:
        return text.lower().endswith(_SUFFIXES) or isinstance(self.shell.user_ns.get(text), Store)

    def _store(self, place: str | None) -> Store:
        given = self.shell.user_ns.get(place) if place else None
        if isinstance(given, Store):
            return given
        path = place or DEFAULT
        where = path if "://" in path else str(Path(path).expanduser().resolve())
        if where in self._stores and self._is_gone(where):
            self._stores.pop(where).close()
        if where not in self._stores:
            try:
                self._stores[where] = open_store(where)
            except (LabError, OSError) as error:
                if place is not None:
                    raise
                print(f"✗ {DEFAULT} can't be used, results are kept in memory for this session: {error}")
                self._stores[where] = open_store("memory://")
        return self._stores[where]

    def _is_gone(self, where: str) -> bool:
        """Tell whether the file of an open store was deleted: what is written to it would be lost."""
        in_memory = self._stores[where].url.startswith("memory:")
        return "://" not in where and not in_memory and not Path(where).exists()

    def _line(self, line: str) -> None:
        words = _words(line)
        if not words or words[0] not in {"ls", "clear"} or len(words) > 2:
            raise UsageError(
                "%cache: write '%cache ls [STORE]' or '%cache clear [STORE]', or use %%cache on a cell"
            )
        store = self._store(words[1] if len(words) == 2 else None)
        if words[0] == "clear":
            print(f"deleted the results of {cells.clear(store)} cells")
            return
        for owner, attrs in cells.listed(store):
            about = attrs.get("arguments") or ", ".join(attrs.get("variables", ()))
            size = units.format_size(attrs.get("total", attrs["nbytes"]))
            print(f"{owner} · {about} · {size} · {_age(attrs['created'])} · took {_spent(attrs['seconds'])}")

    def _say(self, request: _Request, text: str) -> None:
        if not request.silent:
            print(text)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%%cache: {error} in {line!r}") from error


def _parser() -> Any:
    make: Any = MagicArgumentParser
    parser = make(prog="%%cache", add_help=False)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("-n", "--name")
    parser.add_argument("-x", "--ignore", default="")
    parser.add_argument("-f", "--force", action="store_true")
    parser.add_argument("-r", "--readonly", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("--store")
    return parser


def _show_nothing(*_args: object, **_kwargs: object) -> None:
    """Stand in for the shell's display of an error that is about to be raised again."""


def _run_beside(shell: Any, body: str) -> Any:
    """Run a cell that awaits in a thread with a loop of its own, and wait for it.

    The loop of this thread is the kernel's: it is busy with this very cell and can't run another task to its
    end. The thread has a copy of the context, so that output finds its cell.
    """
    loop = asyncio.new_event_loop()
    outcome: list[Any] = []
    text = shell.transform_cell(body)
    task = loop.create_task(shell.run_cell_async(body, transformed_cell=text))

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            outcome.append(loop.run_until_complete(task))
        finally:
            loop.close()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="cell that awaits")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    finally:
        shell.events.trigger("post_execute")
    shell.events.trigger("post_run_cell", outcome[0])
    return outcome[0]


def _restored_line(found: Result) -> str:
    names = ", ".join(found.attrs["variables"]) or "output"
    size = found.attrs["total"] + found.attrs["nbytes"]
    saved = _spent(found.attrs["seconds"])
    return f"✓ cached {_age(found.attrs['created'])} · {names} · {units.format_size(size)} · saved {saved}"


def _age(created: str) -> str:
    age = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(created)).total_seconds()
    return (
        "just now"
        if age < 1
        else f"{units.format_duration(float(int(age))).split(' ', 2)[0]} {_unit(age)} ago"
    )


def _unit(age: float) -> str:
    return units.format_duration(float(int(age))).split(" ")[1]


def _spent(seconds: float) -> str:
    return units.format_duration(round(seconds, 3) if seconds < 60 else float(round(seconds)))
