"""Names in the order in which the statements of a cell read and assign them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Container, Iterable
from typing import Any

from datastore_lab.cache import names
from datastore_lab.cache.names import WHOLE, Import

_RUNNING = {"time", "timeit", "prun", "capture"}
"""Magics whose text is Python that runs in the namespace."""

_WORD = re.compile(r"[A-Za-z_]\w*")


class Scan:
    """Goes through statements in the order in which they run."""

    def __init__(
        self, known: Container[str], transform: Callable[[str], str], codes: dict[tuple[str, int], Any]
    ) -> None:
        self.known, self.transform, self.codes = known, transform, codes
        self.reads: dict[str, set[tuple[str, ...]]] = {}
        self.writes: dict[str, None] = {}
        self.assigned: set[str] = set()
        self.uncertain: set[str] = set()
        self.relied: set[str] = set()
        self.passing: set[str] = set()
        self.solid: set[str] = set()
        self.data: set[str] = set()
        self.deferred: dict[str, names.Names] = {}
        self.modules: dict[str, str] = {}
        self.imports: list[Import] = []
        self._local: list[set[str]] = []

    # -- statements -----------------------------------------------------------------------------------

    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Go through statements one after the other."""
        for statement in statements:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        """Go through one statement and everything in it."""
        match node:
            case ast.If():
                self.expression(node.test)
                self._branches([node.body, node.orelse])
            case ast.Match():
                self.expression(node.subject)
                self._cases(node)
            case ast.For() | ast.AsyncFor():
                self.expression(node.iter)
                self._loop(node)
            case ast.While():
                self.expression(node.test)
                self._loop(node)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self.expression(item.context_expr)
                    self._target(item.optional_vars, passing=True)
                self.block(node.body)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._definition(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case _:
                self._simple(node)

    def _simple(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign():
                self.expression(node.value)
                for target in node.targets:
                    self._target(target)
            case ast.AugAssign():
                self._names_of(node.target)
                self.expression(node.value)
                self._target(node.target)
            case ast.AnnAssign():
                self.expression(node.annotation)
                if node.value is not None:
                    self.expression(node.value)
                    self._target(node.target)
            case ast.Delete():
                for target in node.targets:
                    self._delete(target)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.expression(child)

    def _branches(self, blocks: list[list[ast.stmt]]) -> None:
        before, ends = set(self.assigned), []
        for statements in blocks:
            self.assigned = set(before)
            self.block(statements)
            ends.append(self.assigned)
        self.assigned = set.intersection(*ends)

    def _cases(self, node: ast.Match) -> None:
        before = set(self.assigned)
        for case in node.cases:
            self.assigned = set(before)
            for part in ast.walk(case.pattern):
                name = getattr(part, "name", None) or getattr(part, "rest", None)
                if isinstance(name, str):
                    self._assign(name)
                if isinstance(part, ast.MatchValue):
                    self.expression(part.value)
                if isinstance(part, ast.MatchClass):
                    self.expression(part.cls)
            if case.guard is not None:
                self.expression(case.guard)
            self.block(case.body)
        self.assigned = before

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        before = set(self.assigned)
        if not isinstance(node, ast.While):
            self._target(node.target, passing=True)
        self.block(node.body)
        self.uncertain |= self.assigned - before
        self.block(node.orelse)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        before = set(self.assigned)
        self.block(node.body)
        self.block(node.orelse)
        self.uncertain |= self.assigned - before
        after = set(self.assigned)
        for handler in node.handlers:
            self.assigned = set(before)
            if handler.type is not None:
                self.expression(handler.type)
            if handler.name:
                self.assigned.add(handler.name)
            self.block(handler.body)
        self.assigned = after
        self.block(node.finalbody)

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.expression(decorator)
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        code = self.codes.get((node.name, line))
        read = names.of_code(code) if code is not None else names.Names({}, {}, (), False)
        if isinstance(node, ast.ClassDef):
            for part in [*node.bases, *(keyword.value for keyword in node.keywords)]:
                self.expression(part)
            self._class_body(node)
        else:
            for default in [*node.args.defaults, *node.args.kw_defaults]:
                if default is not None:
                    self.expression(default)
        if node.decorator_list:
            self._trigger(read, {node.name})
        self._assign(node.name)
        self.deferred[node.name] = read

    def _class_body(self, node: ast.ClassDef) -> None:
        """Read what the body of a class reads when it runs; what it assigns is its own."""
        assigned, writes, data = set(self.assigned), dict(self.writes), set(self.data)
        deferred, solid = dict(self.deferred), set(self.solid)
        self.block(node.body)
        self.assigned, self.writes, self.data = assigned, writes, data
        self.deferred, self.solid = deferred, solid

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        plain = isinstance(node, ast.Import)
        for alias in node.names:
            bound = alias.asname or (alias.name.partition(".")[0] if plain else alias.name)
            self._assign(bound)
            if isinstance(node, ast.Import):
                self.modules[bound] = alias.name if alias.asname else bound
                self.imports.append(Import(alias.name, 0, frozenset()))
            else:
                chains = WHOLE if alias.name == "*" else frozenset({(alias.name,)})
                self.imports.append(Import(node.module or "", node.level, chains))

    # -- targets --------------------------------------------------------------------------------------

    def _target(self, node: ast.expr | None, *, passing: bool = False) -> None:
        match node:
            case None:
                return
            case ast.Name():
                self._assign(node.id, passing=passing)
                self.data.add(node.id)
            case ast.Tuple() | ast.List():
                for item in node.elts:
                    self._target(item, passing=passing)
            case ast.Starred():
                self._target(node.value, passing=passing)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.expression(child)

    def _assign(self, name: str, *, passing: bool = False) -> None:
        self.assigned.add(name)
        self.uncertain.discard(name)
        self.writes[name] = None
        self.deferred.pop(name, None)
        self.modules.pop(name, None)
        (self.passing if passing else self.solid).add(name)

    def _delete(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.load(node.id, ())
            self.assigned.discard(node.id)
            self.writes[node.id] = None
            self.data.add(node.id)
        elif isinstance(node, (ast.Tuple, ast.List)):
            for item in node.elts:
                self._delete(item)
        else:
            self._names_of(node)

    def _names_of(self, target: ast.expr) -> None:
        """Read what an augmented assignment or a deletion reads: the name, or the object and the index."""
        if isinstance(target, ast.Name):
            self.load(target.id, ())
        else:
            for child in ast.iter_child_nodes(target):
                self.expression(child)

    # -- expressions ----------------------------------------------------------------------------------

    def expression(self, node: ast.AST) -> None:
        """Go through an expression."""
        match node:
            case ast.Name():
                if isinstance(node.ctx, ast.Load):
                    self.load(node.id, ())
            case ast.Attribute():
                self._attribute(node)
            case ast.NamedExpr():
                self.expression(node.value)
                self._target(node.target)
            case ast.Lambda():
                for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                    self.expression(default)
                self._inner({arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}, [node.body])
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node)
            case ast.Call() if _is_magic(node):
                self._magic(node)
            case _:
                self._plain(node)

    def _plain(self, node: ast.AST) -> None:
        text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
        for name in names.mentioned(text) if isinstance(text, str) else ():
            if name in self.known or name in self.assigned:
                self.load(name, ())
        for child in ast.iter_child_nodes(node):
            self.expression(child)

    def _attribute(self, node: ast.Attribute) -> None:
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.load(inner.id, tuple(chain))
        else:
            self.expression(inner)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        own = {
            item.id
            for part in node.generators
            for item in ast.walk(part.target)
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
        }
        self.expression(node.generators[0].iter)
        parts: list[ast.AST] = [part.iter for part in node.generators[1:]]
        parts += [test for part in node.generators for test in part.ifs]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._inner(own, parts)

    def _inner(self, own: set[str], parts: Iterable[ast.AST]) -> None:
        self._local.append(own)
        for part in parts:
            self.expression(part)
        self._local.pop()

    def load(self, name: str, chain: tuple[str, ...]) -> None:
        """Note that a name is read here."""
        if any(name in own for own in self._local):
            return
        if name not in self.assigned:
            if name != "get_ipython":
                self.reads.setdefault(name, set()).add(chain)
            return
        if name in self.uncertain:
            self.relied.add(name)
        if name in self.modules:
            self.imports.append(Import(self.modules[name], 0, frozenset({chain})))
        if name in self.deferred:
            self._trigger(self.deferred[name], {name})

    def _trigger(self, read: names.Names, seen: set[str]) -> None:
        """Read what a function of this cell reads, now that it may be called."""
        self.imports += read.imports
        local, self._local = self._local, []
        for name, chains in read.globals.items():
            inner = self.deferred.get(name)
            if inner is not None and name in self.assigned:
                if name not in seen:
                    self._trigger(inner, seen | {name})
                continue
            for chain in chains:
                self.load(name, chain)
        self._local = local

    # -- magics ---------------------------------------------------------------------------------------

    def _magic(self, node: ast.Call) -> None:
        kind = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        texts = [
            arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        ]
        if kind in {"run_line_magic", "run_cell_magic"} and texts and texts[0] in _RUNNING:
            self._running(texts[-1], len(texts) > 2)
            texts = texts[1:-1]
        for word in _WORD.findall(" ".join(texts)):
            if word in self.known or word in self.assigned:
                self.load(word, ())

    def _running(self, text: str, whole_cell: bool) -> None:
        """Go through the Python that a magic runs; its options are not Python and stand in front."""
        bare = re.sub(r"^(\s*-\w+(\s+\d+)?)+\s+", "", text) if not whole_cell else text
        try:
            tree = ast.parse(self.transform(bare))
        except SyntaxError:
            for word in _WORD.findall(text):
                if word in self.known:
                    self.load(word, ())
            return
        self.block(tree.body)


def _is_magic(node: ast.Call) -> bool:
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    return isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "get_ipython"
