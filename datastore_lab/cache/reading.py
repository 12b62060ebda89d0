"""What a notebook cell reads and assigns, told from its syntax tree.

A name counts as read if it may be read before the cell has assigned it. The body of a function counts
where the function is used, not where it is defined. Loops and ``try`` are assumed to run their body;
whether the names that hang on this were really assigned is checked after the cell has run.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab.cache import sources
from datastore_lab.cache.definitions import Definitions, definitions, outside
from datastore_lab.cache.scan import Scan

if TYPE_CHECKING:
    from datastore_lab.cache.names import Chains, Import


_ALL = ("locals", "vars", "dir")
_SPACES = ("user_ns", "user_global_ns", "user_module")


class Cell(NamedTuple):
    """What a cell does with names.

    Attributes
    ----------
    text : str
        The syntax tree as text: what of the cell's source counts.
    reads : dict of str to Chains
        Names that may be read before they are assigned, and how.
    writes : list of str
        Names of data that the cell assigns or deletes at top level, in order.
    passing : set of str
        Those of them that only are the variable of a loop or of a ``with``.
    assumed : set of str
        Names whose value is the cell's own only if a loop or ``try`` got as far as assigning them.
    imports : tuple of Import
    definitions : Definitions
        Imports, functions and classes: run again on a hit, instead of being stored.
    docs : bool
        Whether the cell reads docstrings.
    seeds : bool
        Whether it seeds something itself.
    opaque : str or None
        What of the cell reaches variables by names that are not in the code.
    commands : tuple of str
        Files that magics run, and commands of the shell.
    """

    text: str
    reads: dict[str, Chains]
    writes: list[str]
    passing: set[str]
    assumed: set[str]
    imports: tuple[Import, ...]
    definitions: Definitions
    docs: bool
    seeds: bool
    opaque: str | None
    commands: tuple[str, ...]


def read_cell(text: str, known: Container[str] = (), transform: Callable[[str], str] = str) -> Cell:
    r"""Analyse a cell.

    Parameters
    ----------
    text : str
        Python, with magics already transformed into calls.
    known : container of str
        Names that exist; those that turn up in the text of a shell command or a magic count as read.
    transform : callable
        Turns the body of a magic into Python.

    Raises
    ------
    SyntaxError

    Examples
    --------
    >>> cell = read_cell("y = f(x)\nz = y + 1")
    >>> sorted(cell.reads), cell.writes
    (['f', 'x'], ['y', 'z'])
    """
    tree = ast.parse(text)
    scan = Scan(known, transform, _codes(text))
    scan.block(tree.body)
    defined = definitions(tree, scan.data)
    writes = [name for name in scan.writes if name not in defined.names]
    reads = {name: frozenset(chains) for name, chains in sorted(scan.reads.items())}
    docs = "__doc__" in text or "getdoc" in text
    return Cell(
        sources.dump(ast.parse(text)),
        reads,
        writes,
        scan.passing - scan.solid,
        scan.relied,
        tuple(scan.imports),
        defined,
        docs,
        ".seed" in text
        and any(isinstance(node, ast.Attribute) and node.attr == "seed" for node in ast.walk(tree)),
        next(_opaque(tree), None),
        tuple(_commands(tree)),
    )


def _opaque(tree: ast.Module) -> Iterator[str]:
    """Name what gives all variables at once; within a function these are its own."""
    for node in outside(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ALL:
            if node.func.id == "locals" or not node.args:
                yield f"{node.func.id}()"
        elif isinstance(node, ast.Attribute) and node.attr in _SPACES:
            yield node.attr
        elif isinstance(node, ast.Import) and any(alias.name == "__main__" for alias in node.names):
            yield "__main__"


def _commands(tree: ast.Module) -> Iterator[str]:
    """Name what a cell hands to the shell, or runs from a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        texts = [
            arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        ]
        if node.func.attr in {"system", "getoutput"} and texts and _is_shell(node.func.value):
            yield f"!{texts[0]}"
        elif node.func.attr == "run_line_magic" and texts[:1] == ["run"]:
            yield f"%run {texts[-1]}"


def _is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def _codes(text: str) -> dict[tuple[str, int], types.CodeType]:
    """Find the compiled functions and classes of a cell by name and first line."""
    code = compile(text, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    found: dict[tuple[str, int], types.CodeType] = {}
    waiting = [code]
    while waiting:
        for item in waiting.pop().co_consts:
            if isinstance(item, types.CodeType):
                found[item.co_name, item.co_firstlineno] = item
                waiting.append(item)
    return found
