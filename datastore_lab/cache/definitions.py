"""What a cell defines: imports, functions and classes, which are run again on a hit instead of being stored.

A definition is run again when the variables of the cell have been restored, so it finds them as the cell left
them. That is what it found the first time only if the cell did not change them after the definition; here it
is told from the syntax tree which variables that hangs on.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Container, Iterator
from typing import NamedTuple, TypeAlias

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_STATEMENTS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Taken(NamedTuple):
    """A variable that a definition reads when it is run.

    Attributes
    ----------
    by : str
        The definition.
    name : str
        The variable.
    itself : bool
        Whether the definition takes the object as it is, as in ``def f(x=name)``.
    steady : bool
        Whether the cell binds the variable at most once, and before.
    """

    by: str
    name: str
    itself: bool
    steady: bool


class Definitions(NamedTuple):
    """The definitions of a cell.

    Attributes
    ----------
    statements : list of ast.stmt
        In order.
    names : set of str
        What they bind.
    taken : list of Taken
    calls : bool
        Whether running them calls something, which may change what was restored.
    """

    statements: list[ast.stmt]
    names: set[str]
    taken: list[Taken]
    calls: bool


def definitions(tree: ast.Module, data: Container[str]) -> Definitions:
    r"""Collect the definitions at the top level of a cell.

    Parameters
    ----------
    tree : ast.Module
    data : container of str
        Names that the cell assigns otherwise too.

    Examples
    --------
    >>> found = definitions(ast.parse("k = 1\ndef f(x=k): return x\ng = lambda: 2\nk = 2"), {"k", "g"})
    >>> sorted(found.names), found.taken
    (['f', 'g'], [Taken(by='f', name='k', itself=True, steady=False)])
    """
    counts = Counter(_bindings(tree))
    statements = [node for node in tree.body if isinstance(node, _STATEMENTS) or _is_lambda(node, counts)]
    names = {
        name
        for node in statements
        for name in bound_names(node)
        if _is_lambda(node, counts) or name not in data
    }
    taken: list[Taken] = []
    bound: set[str] = set()
    calls = False
    for node in tree.body:
        if node in statements:
            parts = list(_at_once(node))
            calls = calls or any(isinstance(item, ast.Call) for part in parts for item in outside(part))
            calls = calls or bool(getattr(node, "decorator_list", ()))
            by = bound_names(node)[0]
            for part in parts:
                for name in _loads(part):
                    steady = not counts[name] or (counts[name] == 1 and name in bound)
                    taken.append(Taken(by, name, isinstance(part, ast.Name), steady))
        bound.update(_bindings(node))
    return Definitions(statements, names, taken, calls)


def bound_names(statement: ast.stmt) -> list[str]:
    """Name what an import, function, class or ``name = lambda`` binds.

    Examples
    --------
    >>> bound_names(ast.parse("import a.b, c as d").body[0])
    ['a', 'd']
    """
    if isinstance(statement, ast.Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return [getattr(statement, "name", "")]


def _is_lambda(node: ast.stmt, counts: Counter[str]) -> bool:
    """Tell whether a statement gives a function without a name a name that nothing else in the cell gets."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Lambda)
        and all(isinstance(target, ast.Name) and counts[target.id] == 1 for target in node.targets)
    )


def _bindings(node: ast.AST) -> Iterator[str]:
    """Name what code binds, as often as it does; what functions bind for themselves is left out."""
    for item in outside(node):
        if isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load):
            yield item.id
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield item.name
        elif isinstance(item, ast.Global):
            yield from (name for name in item.names for _ in range(2))  # (how often, nobody knows)


def outside(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through code without the bodies of functions, but for the ``global`` in them."""
    waiting = [node]
    while waiting:
        item = waiting.pop(0)
        yield item
        if isinstance(item, _SCOPES):
            waiting += _at_once(item)
            yield from (inner for inner in ast.walk(item) if isinstance(inner, ast.Global))
        else:
            waiting += ast.iter_child_nodes(item)


def _at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Yield those parts of a definition that run when it is defined."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from node.decorator_list
            yield from _signature(node.args)
            yield from [node.returns] if node.returns is not None else []
        case ast.Lambda():
            yield from _signature(node.args)
        case ast.Assign():
            yield from _at_once(node.value)
        case ast.ClassDef():
            yield from [
                *node.decorator_list,
                *node.bases,
                *(item.value for item in node.keywords),
                *node.body,
            ]


def _signature(arguments: ast.arguments) -> Iterator[ast.AST]:
    yield from (item for item in [*arguments.defaults, *arguments.kw_defaults] if item is not None)
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    yield from (item.annotation for item in every if item is not None and item.annotation is not None)


def _loads(part: ast.AST) -> Iterator[str]:
    yield from (
        item.id for item in outside(part) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load)
    )
