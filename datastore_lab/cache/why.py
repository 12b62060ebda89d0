"""Why a result is computed anew: what differs from the nearest stored one, and what code looked like then.

The state of the code lies beside the entries, once for all that were made with it: the record at
``("cache", "code", <digest>)`` holds the parts and, to count lines by, the texts of the functions, as
compressed JSON.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import inspect
import re
import textwrap
import types
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from datastore_lab import media
from datastore_lab.cache import components, entries, names
from datastore_lab.cache.components import CODE_OF, DOC_OF, VERSION_OF
from datastore_lab.cache.key import ARGUMENT, key_of
from datastore_lab.errors import LabError, NotFound, NotStorable

if TYPE_CHECKING:
    from datastore_lab.cache.key import Code
    from datastore_lab.keys import Key
    from datastore_lab.records import Record
    from datastore_lab.store import Store

CODE = "code"
"""The owner of the states of code; that of a function has a dot in its name."""

_Parts: TypeAlias = dict[str, str]


def code_place(digest: str) -> Key:
    """Give the place of a state of code."""
    return entries.entry_key(CODE, digest)


def code_record(code: Code) -> Record:
    """Give the record of a state of code."""
    texts = {label: "\n".join(lines(obj)) for label, obj in code.named.items()}
    raw = media.to_json({"parts": code.parts, "sources": texts}).encode("utf-8", "surrogatepass")
    packed = np.frombuffer(zlib.compress(raw), np.uint8)
    return entries.encoded(packed, {"created": entries.now(), "form": "zlib, JSON"})


def code_of(store: Store, digest: str) -> tuple[dict[str, str], dict[str, str]]:
    """Read the parts and texts of a state of code; empty where it is not there, or not readable."""
    with contextlib.suppress(LabError, OSError, ValueError, KeyError, zlib.error):
        packed = store.record(code_place(digest)).arrays["data"].tobytes()
        found = media.from_json(zlib.decompress(packed).decode("utf-8", "surrogatepass"))
        return dict(found["parts"]), dict(found["sources"])
    return {}, {}


def explain(store: Store, owner: str, own: Mapping[str, str], code: Code, keys: Iterable[str]) -> str:
    """Say how a call differs from the entry of the same function that differs least.

    Parameters
    ----------
    store : Store
    owner : str
    own : mapping
        The parts of the call besides the code.
    code : Code
    keys : iterable of str
        Those of the entries to compare with.
    """
    found = nearest(store, owner, {**code.parts, **own}, keys)
    if found is None:
        return f"nothing of {owner} is in the cache yet"
    before, texts = found
    return "; ".join(_Comparison(before, texts, own, code).sentences())


def nearest(
    store: Store, owner: str, wanted: Mapping[str, str], keys: Iterable[str]
) -> tuple[dict[str, str], dict[str, str]] | None:
    """Give parts and texts of the entry that differs least; the last of several."""
    return components.nearest(_states(store, owner, keys), wanted)


def _states(
    store: Store, owner: str, keys: Iterable[str]
) -> Iterator[tuple[int, _Parts, tuple[_Parts, _Parts]]]:
    """Yield the parts of entries, and these with the texts of their code."""
    codes: dict[str, tuple[_Parts, _Parts]] = {}
    for key in keys:
        try:
            attrs = entries.about(store, entries.entry_key(owner, key))
        except LabError:  # deleted meanwhile, or damaged
            continue
        digest = attrs.get("code", "")
        if digest not in codes:
            codes[digest] = code_of(store, digest)
        before = {**codes[digest][0], **attrs.get("parts", {})}
        yield 0, before, (before, codes[digest][1])


class _Comparison:
    def __init__(
        self, before: Mapping[str, str], texts: Mapping[str, str], own: Mapping[str, str], code: Code
    ) -> None:
        self._before, self._after = _plain(before), _plain({**code.parts, **own})
        self._texts, self._named = texts, code.named
        self._labels = {_label(name).rpartition(" in ")[2] for name in (*before, *self._after)}

    def sentences(self) -> list[str]:
        changed = components.different(self._before, self._after)
        changed.sort(key=lambda name: (not name.startswith(CODE_OF), name.startswith(VERSION_OF), name))
        same = [name for name in self._after if name.startswith(ARGUMENT) and name not in changed]
        told = [self._sentence(name) for name in changed]
        if not told:
            return ["nothing differs, but the entry is gone, too old or damaged"]
        return told + [f"{self._named_as(name)} same" for name in same]

    def _sentence(self, name: str) -> str:
        old, new = self._before.get(name), self._after.get(name)
        shown = self._named_as(name)
        if name.startswith(VERSION_OF):
            return components.of_version(name, old, new)
        if old is None:
            return f"{shown} is new"
        if new is None:
            return f"{shown} is gone"
        if name.startswith(CODE_OF):
            return f"{shown}{self._caller(_label(name))} changed{self._lines(_label(name))}"
        return f"{shown} changed"

    def _named_as(self, name: str) -> str:
        if name == "version":
            return "version="
        if name.startswith(VERSION_OF):
            return name.removeprefix(VERSION_OF)
        if " in " in name:
            variable, _, label = name.partition(" in ")
            return f"`{variable}` in `{self._short(label)}`"
        return f"`{self._short(_label(name))}`"

    def _short(self, label: str) -> str:
        short = label.rpartition(".")[2]
        others = [other for other in self._labels if other.rpartition(".")[2] == short]
        return short if len(others) < 2 else label

    def _caller(self, label: str) -> str:
        name = label.rpartition(".")[2].partition("#")[0]
        for other, obj in self._named.items():
            if other != label and name in _mentioned(obj):
                return f" (called by `{self._short(other)}`)"
        return ""

    def _lines(self, label: str) -> str:
        obj = self._named.get(label)
        if obj is None or label not in self._texts:
            return ""
        less, more = line_counts(self._texts[label].splitlines(), lines(obj))
        return f" −{less} +{more}" if less or more else ""


def _plain(parts: Mapping[str, str]) -> dict[str, str]:
    """Name the libraries of arguments like those of the code."""
    library = rf"^{ARGUMENT}\((.*)\)$"
    return {re.sub(library, rf"{VERSION_OF}\1", name): digest for name, digest in parts.items()}


def line_counts(before: Sequence[str], after: Sequence[str]) -> tuple[int, int]:
    """Count the lines that went and that came.

    Examples
    --------
    >>> line_counts(["a", "b"], ["a", "c", "d"])
    (1, 2)
    """
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [step for step in steps if step[0] != "equal"]
    return sum(step[2] - step[1] for step in changed), sum(step[4] - step[3] for step in changed)


def lines(obj: Any) -> tuple[str, ...]:
    """Give the lines of a function without comments, formatting and docstrings; none without source."""
    code = getattr(obj, "__code__", None)
    return _lines_of(code) if isinstance(code, types.CodeType) else ()


@functools.lru_cache(maxsize=4096)
def _lines_of(code: types.CodeType) -> tuple[str, ...]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError, ValueError):  # no source, or a lambda inside an expression
        return ()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tuple(ast.unparse(tree).splitlines())


def _label(name: str) -> str:
    return re.sub(f"^({CODE_OF}|{DOC_OF}|{ARGUMENT})", "", name)


def _mentioned(obj: Any) -> Iterable[str]:
    code = getattr(obj, "__code__", None)
    if not isinstance(code, types.CodeType):
        return vars(obj) if isinstance(obj, type) else ()
    read = names.of_code(code)
    chains = [*read.globals.items(), *read.closure.items()]
    return {name for name, _ in chains} | {part for _, found in chains for chain in found for part in chain}


def accept(store: Store, owner: str, code: Code, version: str) -> int:
    """Take the newest result for each set of arguments as a result of the code as it is now.

    Parameters
    ----------
    store : Store
        To write to.
    owner : str
    code : Code
    version : str
        Digest of the version that the user gives.

    Returns
    -------
    int
        How many there were.

    Raises
    ------
    NotStorable
        If a value that the code reads has changed, for all of them: then they are not the right results.
    """
    newest, other = _newest(store, owner, code, version)
    moves = [(place, entries.entry_key(owner, key)) for key, (_, place) in newest.items()]
    with store.transaction():
        count = sum(_moved(store, old, new, code) for old, new in moves)
        if count:
            keep_code(store, code)
    if other is not None and not newest:
        raise NotStorable(f"{other} changed; only changes of code can be accepted", key=other)
    return count


def _newest(
    store: Store, owner: str, code: Code, version: str
) -> tuple[dict[str, tuple[str, Key]], str | None]:
    """Give time and place of the newest result by the key it gets, and a value that others differ in."""
    newest: dict[str, tuple[str, Key]] = {}
    other = None
    codes: dict[str, _Parts] = {code.digest: code.parts}
    for place, attrs in entries.listed(store, owner):
        digest, own = attrs.get("code"), attrs.get("parts", {})
        if digest is None:
            continue
        if digest not in codes:
            codes[digest] = code_of(store, digest)[0]
        before = {**codes[digest], "version": own.get("version")}
        if changed := components.different_value(before, {**code.parts, "version": version}):
            other = changed
            continue
        arguments = {name: found for name, found in own.items() if name.startswith(ARGUMENT)}
        key = key_of(code.digest, {name.removeprefix(ARGUMENT): found for name, found in arguments.items()})
        created = str(attrs.get("created", ""))
        if key not in newest or newest[key][0] < created:
            newest[key] = created, place
    return newest, other


def _moved(store: Store, old: Key, new: Key, code: Code) -> bool:
    if old == new or new in store:
        return False
    store.move(old, new)
    entries.update(store, new, {"code": code.digest, "accepted": entries.now()})
    return True


def keep_code(store: Store, code: Code) -> None:
    """Write the state of the code, unless it is there."""
    place = code_place(code.digest)
    try:
        store.stat(place)
    except NotFound:
        store.write(place, code_record(code))
