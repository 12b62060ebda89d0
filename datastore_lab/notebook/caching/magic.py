"""The magics themselves."""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.utils.text import SList

from datastore_lab.cache import register_hasher
from datastore_lab.notebook.caching import completion
from datastore_lab.notebook.caching.cell_run import CellRun
from datastore_lab.notebook.caching.commands import Commands
from datastore_lab.notebook.caching.grammar import read_command, read_request, split_assignment
from datastore_lab.notebook.caching.protect import hint
from datastore_lab.notebook.caching.session import Session


@magics_class
class CacheMagics(Magics):
    """The magics ``%%cache`` and ``%cache``."""

    shell: Any  # (declared optional by its base, but magics always belong to a shell)

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._session = Session(shell)
        completion.install(shell)
        register_hasher(SList, list)
        shell.events.register("post_run_cell", self._explain)

    @no_var_expand
    @line_cell_magic
    def cache(self, line: str, cell: str | None = None) -> None:
        """Run a cell, or restore what it did when nothing that it depends on has changed.

        ::

          %%cache [STORE] [VARS...] [-n NAME] [-i IN,..] [-x IGNORE,..] [-f] [-r] [-s] [-V TAG] [--file PATH]
                  [--ttl 7d] [--min-time 1s] [--no-output] [--copy] [--dry-run] [--store PATH]
          %cache  [the same] y = expression
          %cache  [ls|why|show|clear|gc|size|stats|accept] [NAME|VAR] [--older 30d] [--max-size 20GB]

        A result is used again only if everything is as it was: the cell itself (comments and layout do not
        count), the variables that it reads, by content, the functions and classes that it uses, down to the
        last helper, and the versions of their packages. Back come the variables that the cell assigned or
        changed in place, its output in order, its value, its imports, functions and classes, and the state
        of generators of random numbers. What else it changes (settings of a library, the environment, files)
        does not: do that in a cell of its own. Errors and interrupted cells are not kept.

        STORE is a variable that holds a Store, or a path that ends in .h5, .hdf5, .zarr or .sqlite; without
        one the results lie in datastore_lab_cache.h5 in the working folder. VARS are the variables to keep;
        without them all.

        -n, --name NAME     Keep the cell's results under a name of their own.
        -i, --inputs A,B    Variables that count although the code does not name them.
        -x, --ignore A,B    Variables that do not count and are not kept, as a figure or a progress bar.
        -f, --force         Run the cell whatever is stored, and store what it gives.
        -r, --readonly      Use what is stored, store nothing.
        -s, --silent        No status line.
        -V, --tag TAG       Anything else that tells results apart, as a version of the data.
        --file PATH         The content of a file counts; may hold * and ?, and stand several times.
        --ttl 7d            Run the cell again when the result is older.
        --min-time 1s       Keep only what took longer.
        --no-output         Keep and replay variables only, no output.
        --copy              Give arrays that can be changed; by default they are protected.
        --dry-run           Only say whether the cell would run, and why.
        --store PATH        Path or URL of the store, whatever it ends in.

        %cache ls           What is stored; of one variable or named cell: %cache ls y
        %cache why          Why the last cell ran; why y would be made again: %cache why y
        %cache show y       The code, the inputs and the versions behind y.
        %cache clear        Delete results; some: %cache clear y --older 30d
        %cache gc           Delete what is too old or too much (--older 30d, --max-size 20GB), and give back
                            the space.
        %cache size, stats  How much is stored; what this session has saved.
        %cache accept       Take the stored result as that of the code as it is now, without running it; first
                            look at the edited cell with %%cache --dry-run.
        """
        __tracebackhide__ = True
        if cell is not None:
            self._run(self.shell.var_expand(line, 1) if "{" in line or "$" in line else line, cell)
            return
        assignment = split_assignment(line, self.shell.transform_cell)
        if assignment is not None:
            self._run(*assignment)
        else:
            print(Commands(self._session).run(read_command(line)))

    def _run(self, line: str, body: str) -> None:
        __tracebackhide__ = True
        request = read_request(line, self._session.places.is_store)
        shelf = self._session.places.shelf(request.place)
        CellRun(self._session, request, self._session.cells.get(body), shelf).go()

    def _explain(self, result: Any) -> None:
        """Say what to do about a protected array, below the error of the cell that tried to change it."""
        if self.shell.magics_manager.registry.get(type(self).__name__) is not self:
            return  # (the extension was loaded again)
        source = getattr(getattr(result, "info", None), "raw_cell", None) or ""
        session = self._session
        text = hint(result.error_in_exec, source, session.restored, self.shell.user_ns)
        if text is not None:
            print(text, file=sys.stderr)
