"""Cells that were read before: what of them does not change from one run to the next."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from datastore_lab.cache.cells import Inputs, Wish
from datastore_lab.cache.reading import Cell, read_cell

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable

_MOST = 256
_MOST_WISHES = 16


class Prepared:
    """One cell: its text as Python, what it reads and assigns, its definitions as code.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
    body : str
    text : str
        The cell as Python.
    """

    def __init__(self, shell: Any, body: str, text: str) -> None:
        self.shell, self.body, self.text = shell, body, text
        self._known = _Asked(shell.user_ns)
        self.cell = _read(text, self._known, shell)
        quiet = shell.displayhook.semicolon_at_end_of_expression
        self.quiet: bool = self.cell is not None and quiet(text)
        self._inputs: dict[Wish, Inputs] = {}
        self._code: types.CodeType | None = None

    def holds(self) -> bool:
        """Tell whether the names that the cell was read with are still there, or still missing."""
        return all((name in self.shell.user_ns) == was for name, was in self._known.answers.items())

    def inputs(self, wish: Wish) -> Inputs:
        """Give what the cell reads, as the user wants it seen."""
        assert self.cell is not None
        if wish not in self._inputs:
            if len(self._inputs) >= _MOST_WISHES:
                self._inputs.clear()
            self._inputs[wish] = Inputs(self.cell, wish)
        return self._inputs[wish]

    def define(self) -> None:
        """Run the imports, functions and classes of the cell, which are not stored."""
        assert self.cell is not None
        if not self.cell.definitions.statements:
            return
        if self._code is None:  # (the shell keeps the text of the file for tracebacks and for inspect)
            compiler: Any = self.shell.compile
            file = compiler.cache(self.text, self.shell.execution_count, raw_code=self.body)
            self._code = compiler(ast.Module(self.cell.definitions.statements, []), file, "exec")
        with self.shell.builtin_trap:
            exec(self._code, self.shell.user_ns)  # noqa: S102 (the user's own cell)


class Known:
    """The cells of a session that were read last."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._cells: dict[tuple[Any, ...], Prepared] = {}

    def get(self, body: str) -> Prepared:
        """Read a cell, or give it as it was read before."""
        single = len(body.splitlines()) < 2  # (how a single line is meant may hang on what is defined)
        text = self._shell.transform_cell(body) if single else ""
        manager = self._shell.input_transformer_manager
        steps = (*manager.cleanup_transforms, *manager.line_transforms, *manager.token_transformers)
        key = (body, text, *map(id, steps))
        found = self._cells.pop(key, None)
        if found is None or not found.holds():
            found = Prepared(self._shell, body, text or self._shell.transform_cell(body))
        self._cells[key] = found
        if len(self._cells) > _MOST:
            del self._cells[next(iter(self._cells))]
        return found


class _Asked:
    """The names of a namespace that were asked for, with the answers."""

    def __init__(self, space: Iterable[str]) -> None:
        self._space = space
        self.answers: dict[str, bool] = {}

    def __contains__(self, name: object) -> bool:
        answer = name in self._space  # type: ignore[operator]
        if isinstance(name, str):
            self.answers[name] = answer
        return answer


def _read(text: str, known: Any, shell: Any) -> Cell | None:
    """Analyse a cell; None if it is not Python: running it shows the error as without the magic."""
    try:
        return read_cell(text, known, shell.transform_cell)
    except SyntaxError:
        return None
