"""Where code comes from: whose it is, which version, and its text without what does not matter.

Local code is what the user may edit: neither the standard library nor anything installed into a
site-packages folder, so an editable install is local. For local code the normalised syntax tree counts,
for the rest the version of its distribution.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib.metadata
import importlib.util
import linecache
import site
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any, NamedTuple

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_FUTURES = 0x1FF0000  # the bits of co_flags that `from __future__` imports set
_FOLDERS = {"site-packages", "dist-packages"}
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Form(NamedTuple):
    """The text of a function that decides what it does, and its docstring apart."""

    text: str
    doc: str


def is_standard(module: str | None) -> bool:
    """Tell whether a module is part of Python itself.

    Examples
    --------
    >>> is_standard("json.decoder"), is_standard("numpy")
    (True, False)
    """
    top = (module or "builtins").partition(".")[0]
    return (top != "__main__" and top in sys.stdlib_module_names) or top in sys.builtin_module_names


def is_local(module: str | None) -> bool:
    """Tell whether a module is code that the user edits.

    Examples
    --------
    >>> is_local("__main__"), is_local("numpy.linalg"), is_local("json")
    (True, False, False)
    """
    if is_standard(module):
        return False
    top = (module or "").partition(".")[0]
    return top == "__main__" or (top != __name__.partition(".")[0] and not _installed(top))


@functools.lru_cache(maxsize=4096)
def _installed(top: str) -> bool:
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if file is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return False
        file = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if file is None:
        return False
    parents = Path(file).resolve().parents
    return any(parent.name in _FOLDERS for parent in parents) or any(
        parent in _library_folders() for parent in parents
    )


@functools.cache
def _library_folders() -> set[Path]:
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return {
        Path(path).resolve() for path in [*named, *site.getsitepackages(), site.getusersitepackages()] if path
    }


def distribution(module: str) -> tuple[str, str]:
    """Give the name and version of the distribution that a module is part of.

    Examples
    --------
    >>> distribution("numpy.linalg")[0]
    'numpy'
    """
    return _distribution(module.partition(".")[0])


@functools.lru_cache(maxsize=4096)
def _distribution(top: str) -> tuple[str, str]:
    if (version := _version(top)) is not None:
        return top, version
    for name in _providers().get(top, ()):  # asked for only now: the scan takes 100 ms
        if (version := _version(name)) is not None:
            return name, version
    return top, str(getattr(sys.modules.get(top), "__version__", "unknown"))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _providers() -> dict[str, list[str]]:
    return {name: sorted(found) for name, found in importlib.metadata.packages_distributions().items()}


@functools.lru_cache(maxsize=16384)
def form(code: types.CodeType) -> Form:
    """Give the normalised text of a function, lambda or method.

    Comments, formatting, positions, decorators and defaults are out (the cache reads the objects that
    decorators and defaults gave). The text is taken from the source only if that source compiles to exactly
    this code: a file that was edited after it was imported is not what runs. Otherwise, and where there is
    no source, the compiled code itself is the text.
    """
    for refresh in (False, True):
        if refresh:
            linecache.checkcache(code.co_filename)
        node = _find(code, "".join(linecache.getlines(code.co_filename)))
        if node is not None:
            return _normalised(node)
    return Form(repr(_compiled(code)), "")


class _Source(NamedTuple):
    nodes: dict[int, list[_Function | ast.Lambda]]
    codes: frozenset[types.CodeType]


@functools.lru_cache(maxsize=256)
def _parsed(text: str, futures: int) -> _Source | None:
    try:
        tree = ast.parse(text)
        compiled = compile(text, "<source>", "exec", futures | _FLAGS, dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    nodes: dict[int, list[_Function | ast.Lambda]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            decorators = getattr(node, "decorator_list", [])
            nodes.setdefault(min([node.lineno, *(item.lineno for item in decorators)]), []).append(node)
    return _Source(nodes, frozenset(_all_codes(compiled)))


def _all_codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [item for item in code.co_consts if isinstance(item, types.CodeType)]
    return inner + [item for code in inner for item in _all_codes(code)]


def _find(code: types.CodeType, text: str) -> _Function | ast.Lambda | None:
    source = _parsed(text, code.co_flags & _FUTURES) if text else None
    if source is None or code not in source.codes:
        return None
    candidates = [
        node
        for node in source.nodes.get(code.co_firstlineno, ())
        if getattr(node, "name", "<lambda>") == code.co_name and _contains(node, code)
    ]
    return min(candidates, key=_extent) if candidates and _unique(candidates) else None


def _contains(node: _Function | ast.Lambda, code: types.CodeType) -> bool:
    begin, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    return all(
        begin <= (line, column) and (last, final) <= end
        for line, last, column, final in code.co_positions()
        if line and last and column is not None and final is not None and (last, final) != (line, column)
    )


def _extent(node: ast.expr | ast.stmt) -> tuple[int, int]:
    lines = (node.end_lineno or 0) - node.lineno
    return lines, (node.end_col_offset or 0) - node.col_offset


def _unique(candidates: list[_Function | ast.Lambda]) -> bool:
    """Several lambdas in a line are told apart by columns; without columns nothing can tell them apart."""
    extents = sorted(map(_extent, candidates))
    return len(extents) < 2 or extents[0] != extents[1]


def _normalised(node: _Function | ast.Lambda) -> Form:
    own = copy.deepcopy(node)
    doc = "" if isinstance(own, ast.Lambda) else ast.get_docstring(own, clean=False) or ""
    if not isinstance(own, ast.Lambda):
        own.decorator_list = []
    own.args.defaults = [ast.Constant(None) for _ in own.args.defaults]
    own.args.kw_defaults = [item and ast.Constant(None) for item in own.args.kw_defaults]
    return Form(dump(own), doc)


def dump(tree: ast.AST) -> str:
    """Write a syntax tree as text without docstrings of functions and classes; changes the tree."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _compiled(code: types.CodeType) -> tuple[Any, ...]:
    constants = [
        _compiled(item) if isinstance(item, types.CodeType) else _constant(item) for item in code.co_consts
    ]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (sys.version_info[:2], code.co_code, constants, counts, names, code.co_exceptiontable)


def _constant(item: Any) -> str:
    if isinstance(item, frozenset):  # (the order of a set differs between processes)
        return f"frozenset{sorted(map(_constant, item))}"
    if isinstance(item, tuple):
        return f"({', '.join(map(_constant, item))})"
    return f"{type(item).__name__} {item!r}"
