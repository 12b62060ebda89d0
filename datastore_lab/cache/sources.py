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
import os
import re
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from datastore_lab.errors import NotStorable

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_FUTURES = 0x1FF0000  # the bits of co_flags that `from __future__` imports set
_OWN = __name__.partition(".")[0]
_FOLDERS = {"site-packages", "dist-packages"}
_COMPREHENSION = re.compile(r"<(?:listcomp|setcomp|dictcomp|genexpr)>\.(?:<locals>\.)?")
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Form(NamedTuple):
    """The text of a function that decides what it does, and its docstring apart."""

    text: str
    doc: str


def is_standard(module: str | None) -> bool:
    """Tell whether a module is part of Python itself, and no file of the user's with the same name.

    Examples
    --------
    >>> is_standard("json.decoder"), is_standard("numpy")
    (True, False)
    """
    top = (module or "builtins").partition(".")[0]
    if top in sys.builtin_module_names:
        return True
    return top in sys.stdlib_module_names and _of_python(getattr(sys.modules.get(top), "__file__", None))


@functools.lru_cache(maxsize=4096)
def _of_python(file: str | None) -> bool:
    return file is None or any(parent in _python_folders() for parent in Path(file).resolve().parents)


@functools.cache
def _python_folders() -> set[Path]:
    named = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(os.__file__).parent)]
    return {Path(path).resolve() for path in named if path}


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
    if top in {"__main__", _OWN}:
        return top == "__main__"
    return not _installed(top, getattr(sys.modules.get(module or ""), "__file__", None))


@functools.lru_cache(maxsize=4096)
def _installed(top: str, file: str | None) -> bool:
    """Tell whether a file is installed; where it is not known, that of the whole package decides."""
    file = file or _file_of(top)
    if file is None:
        return False
    parents = Path(file).resolve().parents
    return any(parent.name in _FOLDERS for parent in parents) or any(
        parent in _library_folders() for parent in parents
    )


def _file_of(top: str) -> str | None:
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if file is not None:
        return str(file)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), None)


@functools.cache
def _library_folders() -> set[Path]:
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return {
        Path(path).resolve() for path in [*named, *site.getsitepackages(), site.getusersitepackages()] if path
    }


def binary(module: str) -> str | None:
    """Digest the file of a module that is compiled, so that building it anew is seen; None for others."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or file.endswith((".py", ".pyc")):
        return None
    return _digest_of(file, module)


def _digest_of(file: str, module: str) -> str:
    try:
        found = Path(file).stat()
        return _file_digest(file, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as error:
        raise NotStorable(
            f"the cache can't read {file}, the code of {module}: {error}; install it anew", key=module
        ) from error


@functools.lru_cache(maxsize=256)
def _file_digest(file: str, _changed: int, _size: int, _number: int) -> str:
    return str(xxhash.xxh3_128_hexdigest(Path(file).read_bytes()))


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
    loaded = sys.modules.get(top)  # without metadata: the version that it names itself, or its file
    file = getattr(loaded, "__file__", None)
    own = getattr(loaded, "__version__", None) or (file and _digest_of(file, top)) or "unknown"
    return top, str(own)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, OSError, KeyError):  # (not there, or half removed)
        return None


@functools.cache
def _providers() -> dict[str, list[str]]:
    return {name: sorted(found) for name, found in importlib.metadata.packages_distributions().items()}


def form(code: types.CodeType) -> Form:
    """Give the normalised text of a function, lambda or method.

    Comments, formatting, positions, decorators and defaults are out (the cache reads the objects that
    decorators and defaults gave). The text is taken from the source only if that source compiles to exactly
    this code: a file that was edited after it was imported is not what runs. Otherwise, and where there is
    no source, the compiled code itself is the text.
    """
    return _form(code, code.co_filename)  # (code from elsewhere may be equal, but have no source)


@functools.lru_cache(maxsize=16384)
def _form(code: types.CodeType, file: str) -> Form:
    for refresh in (False, True):
        if refresh:
            linecache.checkcache(file)
        node = _find(code, "".join(linecache.getlines(file)))
        if node is not None:
            return _normalised(node)
    return Form(repr(_compiled(code)), "")


class _Source(NamedTuple):
    nodes: dict[tuple[int, str], list[_Function | ast.Lambda]]
    codes: frozenset[types.CodeType]


@functools.lru_cache(maxsize=256)
def _parsed(text: str, futures: int) -> _Source | None:
    try:
        tree = ast.parse(text)
        compiled = compile(text, "<source>", "exec", futures | _FLAGS, dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    nodes: dict[tuple[int, str], list[_Function | ast.Lambda]] = {}
    for node, name in _named(tree, ""):
        decorators = getattr(node, "decorator_list", [])
        line = min([node.lineno, *(item.lineno for item in decorators)])
        nodes.setdefault((line, name), []).append(node)
    return _Source(nodes, frozenset(_all_codes(compiled)))


class _Parts(ast.AST):
    """Some nodes that stand in one scope."""

    _fields = ("parts",)

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts


def _named(tree: ast.AST, within: str) -> Iterator[tuple[_Function | ast.Lambda, str]]:
    """Yield functions and lambdas with their qualified names, as the compiler gives them."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (*_DOCUMENTED, ast.Lambda)):
            yield from _named(node, within)
            continue
        name = within + getattr(node, "name", "<lambda>")
        if not isinstance(node, ast.ClassDef):
            yield node, name
        body = node.body if isinstance(node.body, list) else [node.body]
        inside = f"{name}." if isinstance(node, ast.ClassDef) else f"{name}.<locals>."
        yield from _named(_Parts(body), inside)
        outside = [part for part in ast.iter_child_nodes(node) if part not in body]
        yield from _named(_Parts(outside), within)  # decorators, defaults, annotations, bases


def _all_codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [item for item in code.co_consts if isinstance(item, types.CodeType)]
    return inner + [item for code in inner for item in _all_codes(code)]


def _find(code: types.CodeType, text: str) -> _Function | ast.Lambda | None:
    source = _parsed(text, code.co_flags & _FUTURES) if text else None
    if source is None or code not in source.codes:
        return None
    name = _COMPREHENSION.sub("", code.co_qualname)
    candidates = source.nodes.get((code.co_firstlineno, name), [])
    if len(candidates) > 1:  # lambdas in a line are told apart by columns, if the code knows its columns
        candidates = [node for node in candidates if _contains(node, code)]
    return candidates[0] if len(candidates) == 1 else None


def _contains(node: _Function | ast.Lambda, code: types.CodeType) -> bool:
    begin, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    return all(
        begin <= (line, column) and (last, final) <= end
        for line, last, column, final in code.co_positions()
        if line and last and column is not None and final is not None and (last, final) != (line, column)
    )


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
