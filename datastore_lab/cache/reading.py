"""What a notebook cell reads and assigns, told from its syntax tree.

A name counts as read if it may be read before the cell has assigned it. The body of a function counts
where the function is used, not where it is defined. Loops and ``try`` are assumed to run their body;
whether the names that hang on this were really assigned is checked after the cell has run.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab.cache import sources
from datastore_lab.cache.definitions import Definitions, definitions
from datastore_lab.cache.scan import Scan

if TYPE_CHECKING:
    from datastore_lab.cache.names import Chains, Import


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
    )


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
