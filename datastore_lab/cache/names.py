"""Which names a piece of compiled code reads: globals, closure variables, imports, attribute chains."""

from __future__ import annotations

import dis
import functools
import re
import types
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from datastore_lab.cache.opaque import ATTRIBUTES

Chains: TypeAlias = frozenset[tuple[str, ...]]
"""How a name is used: ``{("linalg", "norm")}`` for ``np.linalg.norm``; ``()`` where it is used as a whole."""

WHOLE: Chains = frozenset({()})

_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_CELL = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
_MENTION = re.compile(r"@([A-Za-z_]\w*)")
_DOCS = {"__doc__", "getdoc"}


class Import(NamedTuple):
    """An import statement: the module, the dots before it, and what is taken from it.

    After ``import a.b`` the name ``a`` is bound; ``top`` tells how that is used.
    """

    module: str
    level: int
    chains: Chains
    top: Chains = frozenset()


class Names(NamedTuple):
    """What code reads, in a fixed order."""

    globals: dict[str, Chains]
    closure: dict[str, Chains]
    imports: tuple[Import, ...]
    docs: bool
    opaque: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=16384)
def of_code(code: types.CodeType) -> Names:
    """Collect the names that a function reads, those of the functions inside it included.

    Examples
    --------
    >>> sorted(of_code((lambda x: abs(x) + offset).__code__).globals)
    ['abs', 'offset']
    """
    found: dict[str, set[tuple[str, ...]]] = {}
    closed: dict[str, set[tuple[str, ...]]] = {}
    imports: list[Import] = []
    docs, opaque = False, set()
    for inner in _codes(code):
        local: dict[str, set[tuple[str, ...]]] = {}
        for kind, name, chain in _loads(inner):
            target = {"global": found, "cell": closed, "local": local}[kind]
            target.setdefault(name, set()).add(chain)
            docs |= name in _DOCS or bool(_DOCS.intersection(chain))
        for name in _mentioned(inner):
            found.setdefault(name, set()).add(())
        imports += _imports(inner, local)
        docs |= bool(_DOCS.intersection(inner.co_names)) or _mentions(inner)
        opaque |= ATTRIBUTES.intersection(inner.co_names)
    free = {name: frozenset(closed.get(name, {()})) for name in code.co_freevars}
    return Names(_ordered(found), _ordered(free), tuple(imports), docs, frozenset(opaque))


def _ordered(found: dict[str, set[tuple[str, ...]]] | dict[str, Chains]) -> dict[str, Chains]:
    return {name: frozenset(chains) for name, chains in sorted(found.items())}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from _codes(item)


def mentioned(text: str) -> list[str]:
    """Find the variables that text names for pandas, as in ``table.query("size > @smallest")``.

    Examples
    --------
    >>> mentioned("size > @smallest and size < @largest")
    ['smallest', 'largest']
    """
    return _MENTION.findall(text) if "@" in text else []


def _mentioned(code: types.CodeType) -> Iterator[str]:
    own = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    for item in code.co_consts:
        if isinstance(item, str):
            yield from (name for name in mentioned(item) if name not in own)


def _mentions(code: types.CodeType) -> bool:
    """Tell whether docstrings are read by name, as in ``getattr(f, "__doc__")``."""
    return any(isinstance(item, str) and item == "__doc__" for item in code.co_consts)


def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in {"EXTENDED_ARG", "CACHE"}]


def _loads(code: types.CodeType) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    steps = _steps(code)
    for number, step in enumerate(steps):
        kind = _kind(step.opname)
        if kind is None:
            continue
        *others, name = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        yield from (("local", str(other), ()) for other in others)
        yield kind, str(name), _chain(steps, number + 1)


def _kind(operation: str) -> str | None:
    if operation in _GLOBAL:
        return "global"
    if operation in _CELL:
        return "cell"
    return "local" if "LOAD_FAST" in operation else None


def _chain(steps: list[dis.Instruction], begin: int) -> tuple[str, ...]:
    chain = []
    for following in steps[begin:]:
        if following.opname not in _ATTRIBUTE:
            break
        chain.append(str(following.argval))
    return tuple(chain)


def _imports(code: types.CodeType, local: dict[str, set[tuple[str, ...]]]) -> Iterator[Import]:
    steps = _steps(code)
    for number, step in enumerate(steps):
        if step.opname != "IMPORT_NAME":
            continue
        level, taken = steps[number - 2].argval, steps[number - 1].argval
        level = level if isinstance(level, int) else 0
        if taken:
            chains = WHOLE if "*" in taken else frozenset((name,) for name in taken)
            yield Import(str(step.argval), level, chains)
            continue
        store = next(later for later in steps[number + 1 :] if later.opname.startswith("STORE_"))
        # (only a variable of this very function can be followed, and one that is not used stands for effects)
        used = local.get(str(store.argval)) if store.opname == "STORE_FAST" else None
        chains = frozenset(used or {()})
        if steps[number + 1].opname == "IMPORT_FROM" or "." not in str(step.argval):
            yield Import(str(step.argval), level, chains)
        else:
            yield Import(str(step.argval), level, frozenset(), chains)
