# ruff: noqa: E501 (cells on one line)
"""Situations in which caches of notebook cells go wrong, as sequences of sessions.

A session is the cells that come first, the cell that is cached, an expression over the namespace
afterwards, its value, and whether the cell must run or be restored.
"""

from __future__ import annotations

from typing import NamedTuple

MISS, HIT, REFUSED = "miss", "hit", "refused"


class Session(NamedTuple):
    before: str
    cell: str
    after: str
    value: object
    expected: str
    options: str = ""


def edited(
    before: str, cell: str, old: str, new: str, after: str, values: tuple[object, object]
) -> list[Session]:
    """An edit that matters, in the cells before or in the cell itself, and back again."""
    assert old in before + cell
    first = Session(before, cell, after, values[0], MISS)
    second = Session(before.replace(old, new), cell.replace(old, new), after, values[1], MISS)
    return [first, second, first._replace(expected=HIT), second._replace(expected=HIT)]


def same(first: tuple[str, str], second: tuple[str, str], after: str, value: object) -> list[Session]:
    """An edit that does not matter."""
    return [Session(*first, after, value, MISS), Session(*second, after, value, HIT)]


G = "def g(x):\n    return x + 1\n"

SESSIONS: dict[str, list[Session]] = {
    "cell edited": edited("", "y = 1 + 1", "+ 1", "+ 2", "y", (2, 3)),
    "comment edited": same(("", "y = 2  # a"), ("", "# b\ny = (2)\n\n"), "y", 2),
    "variable changed upstream": edited("x = 1", "y = x + 1", "x = 1", "x = 2", "y", (2, 3)),
    "variable of another type": edited("x = 1", "y = repr(x)", "x = 1", "x = True", "y", ("1", "True")),
    "variable that is not read": same(("x = 1", "y = 5"), ("x = 2", "y = 5"), "y", 5),
    "array changed upstream": edited("a = np.zeros(9)\na[4] = 1", "y = a.sum() + 0", "a[4] = 1", "a[4] = 2", "float(y)", (1.0, 2.0)),
    "array transposed upstream": edited("a = np.arange(6.).reshape(2, 3)", "y = a.ravel().tolist()", "(2, 3)", "(3, 2)", "len(y)", (6, 6))[:2],
    "helper edited": edited(G, "y = g(1)", "+ 1", "+ 2", "y", (2, 3)),
    "helper of a helper edited": edited(G + "def f(x):\n    return g(x)", "y = f(1)", "+ 1", "+ 2", "y", (2, 3)),
    "helper reads a variable": edited("k = 1\ndef g():\n    return k", "y = g()", "k = 1", "k = 2", "y", (1, 2)),
    "class edited": edited("class A:\n    k = 1", "y = A().k", "k = 1", "k = 2", "y", (1, 2)),
    "method of an object's class edited": edited("class A:\n    def g(self):\n        return 1\na = A()", "y = a.g()", "return 1", "return 2", "y", (1, 2)),
    "read and assigned": [
        Session("x = 1", "x = x + 1", "x", 2, MISS),
        Session("x = 2", "x = x + 1", "x", 3, MISS),
        Session("x = 1", "x = x + 1", "x", 2, HIT),
        Session("x = 5", "x += 1", "x", 6, MISS),
    ],
    "assigned, then read, and there before": [
        Session("x = 1", "y = x\nz = y + 1", "(y, z)", (1, 2), MISS),
        Session("x = 1\ny = 99\nz = 98", "y = x\nz = y + 1", "(y, z)", (1, 2), HIT),
    ],
    "item assigned": [
        Session("d = {'a': 1}", "d['k'] = 5", "d", {"a": 1, "k": 5}, MISS),
        Session("d = {'a': 1}", "d['k'] = 5", "d", {"a": 1, "k": 5}, HIT),
        Session("d = {'a': 2}", "d['k'] = 5", "d", {"a": 2, "k": 5}, MISS),
    ],
    "column assigned": [
        Session("df = pd.DataFrame({'x': [1, 2]})", "df['a'] = df.x * 2", "df.a.tolist()", [2, 4], step) for step in (MISS, HIT)
    ],
    "appended": [Session("x = [1]", "x.append(2)", "x", [1, 2], step) for step in (MISS, HIT)],
    "filled by a function": [
        Session("a = np.zeros(3)\ndef fill(b):\n    b[:] = 7", "fill(a)", "a.tolist()", [7.0, 7.0, 7.0], step) for step in (MISS, HIT)
    ],
    "global filled by a function": [
        Session("log = []\ndef note(v):\n    log.append(v)", "note(3)", "log", [3], step) for step in (MISS, HIT)
    ],
    "given variables and one changed in place": [
        Session("d = {}", "y = 1\nz = 2\nd['k'] = 3", "(y, d)", (1, {"k": 3}), step, "y") for step in (MISS, HIT)
    ],
    "hidden state changed": [
        Session("class A:\n    n = 0", "A.n += 1\ny = A.n", "y", 1, REFUSED),
        Session("class A:\n    n = 0", "A.n += 1\ny = A.n", "y", 1, REFUSED),
    ],
    "function defined in the cell": [
        Session("k = 2", "def f(x):\n    return k * x\ny = f(3)", "(y, f(5))", (6, 10), MISS),
        Session("k = 2", "def f(x):\n    return k * x\ny = f(3)", "(y, f(5))", (6, 10), HIT),
        Session("k = 3", "def f(x):\n    return k * x\ny = f(3)", "(y, f(5))", (9, 15), MISS),
    ],
    "functions defined in any order": [
        Session("", "def f(x):\n    return g(x)\ndef g(x):\n    return x + 1\ny = f(1)", "y", 2, MISS),
        Session("def g(x):\n    return 50", "def f(x):\n    return g(x)\ndef g(x):\n    return x + 1\ny = f(1)", "y", 2, HIT),
    ],
    "function called before it is defined": edited("def g():\n    return 1", "y = g()\ndef g():\n    return 5", "return 1", "return 2", "y", (1, 2)),
    "import in the cell": [Session("", "import math\nfrom os import path as p\ny = math.floor(2.5)", "(y, math.ceil(1.5), p.sep)", (2, 2, "/"), step) for step in (MISS, HIT)],
    "import that may fail": [
        Session("", "try:\n    import nothing_of_that_name as n\nexcept ImportError:\n    n = None\n    import json as j\ny = 1", "(y, n, j.dumps(1))", (1, None, "1"), step)
        for step in (MISS, HIT)
    ],
    "names asked for at run time": [Session("x = 1", "y = eval('x')", "y", 1, REFUSED), Session("x = 2", "y = globals()['x']", "y", 2, REFUSED)],
    "store that is read": [Session("", "y = list(lab_store)", "y", [], REFUSED)],
    "loop variable": [Session("", "t = 0\nfor i in range(4):\n    t += i", "(t, i)", (6, 3), step) for step in (MISS, HIT)],
    "read after a loop": [
        Session("v = [1, 2]", "for q in v:\n    last = q\ny = last", "y", 2, MISS),
        Session("v = [1, 2]\nlast = 70", "for q in v:\n    last = q\ny = last", "y", 2, HIT),
    ],
    "loop that never ran": [
        Session("v = []\nlast = 'old'", "for q in v:\n    last = q\ny = last", "y", "old", REFUSED),
        Session("v = []\nlast = 'new'", "for q in v:\n    last = q\ny = last", "y", "new", REFUSED),
    ],
    "branch not taken": edited("n = 1\nfast = False", "if fast:\n    n = 10\ny = n", "n = 1\n", "n = 2\n", "y", (1, 2)),
    "both branches": [
        Session("fast = False", "if fast:\n    n = 10\nelse:\n    n = 20\ny = n", "y", 20, MISS),
        Session("fast = False\nn = 7", "if fast:\n    n = 10\nelse:\n    n = 20\ny = n", "y", 20, HIT),
    ],
    "comprehension": edited("k = 1\nx = 9", "y = [x * k for x in range(3)]", "k = 1", "k = 2", "y", ([0, 1, 2], [0, 2, 4])),
    "name of a comprehension": same(("x = 1", "y = [x for x in 'ab']"), ("x = 2", "y = [x for x in 'ab']"), "y", ["a", "b"]),
    "lambda": edited("k = 1", "y = sorted([3, 1], key=lambda v: v * k)", "k = 1", "k = -1", "y", ([1, 3], [3, 1])),
    "class in the cell": edited("k = 1", "class A:\n    j = k\n    def g(self):\n        return k\ny = A().g() + A.j", "k = 1", "k = 2", "y", (2, 4)),
    "deleted": [Session("", "t = 1\ny = t + 1\ndel t", "(y, 't' in globals())", (2, False), step) for step in (MISS, HIT)],
    "unpacked": [Session("p = (1, [2, 3])", "a, (b, *c) = p", "(a, b, c)", (1, 2, [3]), step) for step in (MISS, HIT)],
    "walrus": [Session("", "y = [(n := 4), n]", "(y, n)", ([4, 4], 4), step) for step in (MISS, HIT)],
    "handle of a file": [Session("", "with open('/dev/null') as f:\n    y = f.read()", "y", "", step) for step in (MISS, HIT)],
    "shell command": edited("word = 'one'", "y = !echo {word}\ny = list(y)", "'one'", "'two'", "y", (["one"], ["two"])),
    "magic that runs Python": edited("x = 1", "%time y = x + 1", "x = 1", "x = 2", "y", (2, 3)),
    "awaited": edited("import asyncio\nx = 1", "await asyncio.sleep(0)\ny = x", "x = 1", "x = 2", "y", (1, 2)),
    "result that can't be stored": [Session("", "import threading\ny = threading.Lock()", "y.locked()", False, REFUSED)],
    "input without content": [Session("import threading\nf = open('/dev/null')", "y = f.read()", "(y, f.close())", ("", None), REFUSED)],
    "input left out": [Session("f = open('/dev/null')", "y = f.read()", "(y, f.close())", ("", None), step, "-x f") for step in (MISS, HIT)],
    "named cells": [
        Session("", "y = 1", "y", 1, MISS, "-n a"),
        Session("", "y = 1", "y", 1, MISS, "-n b"),
        Session("", "y = 1", "y", 1, HIT, "-n a"),
    ],
    "forced": [Session("", "y = 1", "y", 1, MISS), Session("", "y = 1", "y", 1, MISS, "--force"), Session("", "y = 1", "y", 1, HIT)],
    "read only": [Session("", "y = 1", "y", 1, MISS, "-r"), Session("", "y = 1", "y", 1, MISS), Session("", "y = 1", "y", 1, HIT, "-r")],
    "two names of one object": [Session("", "a = [1]\nb = a\na", "(b.append(2), a, b, _)", (None, [1, 2], [1, 2], [1, 2]), step) for step in (MISS, HIT)],
    "another name of an input": [Session("d = [1]", "e = d\nf = [e]", "(e.append(2), d, e)", (None, [1, 2], [1, 2]), step) for step in (MISS, HIT)],
    "another name of an input that is left out": [
        Session("d = [1]", "e = d", "(e, e is d)", ([1], True), MISS, "-x d"),
        Session("d = [2]", "e = d", "(e, e is d)", ([1], False), HIT, "-x d"),
    ],
    "changed in place, and known to others": [
        Session(f"x = {made}\nothers = [x]\nother = x", cell, "(other is x, bool(str(others[0]) == str(x)), len(x))", (True, True, size), step)
        for made, cell, size in [("[1]", "x.append(2)", 2), ("{1: 2}", "x[3] = 4", 2), ("{1}", "x |= {2}", 2), ("np.zeros(2)", "x += 1", 2)]
        for step in (MISS, HIT)
    ],
    "table changed in place that has two names": [Session("t = pd.DataFrame({'a': [1]})\nu = t", "t['b'] = 2", "(list(u), u is t)", (["a", "b"], True), step) for step in (MISS, HIT)],
    "view of an array changed in place": [Session("a = np.zeros(3)\nv = a[:2]", "a += 1", "v.tolist()", [1.0, 1.0], step) for step in (MISS, HIT)],
    "assigned by a function": [Session("", "def f():\n    global n\n    n = 1\nf()\ny = 2", "(n, y)", (1, 2), step) for step in (MISS, HIT)],
    "assigned by text": [Session("", "get_ipython().run_cell('n = 1')\ny = 2", "(n, y)", (1, 2), step) for step in (MISS, HIT)],
    "deleted by a function": [Session("n = 1\ndef f():\n    global n\n    del n", "f()", "'n' in globals()", False, step) for step in (MISS, HIT)],
    "imported with a star": [Session("", "from math import *\ny = floor(2.5)", "(y, ceil(2.5))", (2, 3), step) for step in (MISS, HIT)],
    "seeded in the cell": [
        Session(f"import random\n{draw}(5)", f"{seed}(1)\nx = {draw}(1000)", f"(int(x), {draw}(1000))", value, step)
        for seed, draw, value in [("random.seed", "random.randrange", (137, 582)), ("np.random.seed", "np.random.randint", (37, 235))]
        for step in (MISS, HIT)
    ],
    "seeded before the cell": [
        Session(f"np.random.seed({seed})", "x = np.random.randint(1000)", "(int(x), np.random.randint(1000))", value, step)
        for seed, value, step in [(1, (37, 235), MISS), (2, (168, 527), MISS), (2, (168, 527), HIT), (1, (37, 235), HIT)]
    ],
    "random seeded before the cell": [
        Session(f"import random\nrandom.seed({seed})", "x = random.randrange(1000)", "(x, random.randrange(1000))", value, step)
        for seed, value, step in [(1, (137, 582), MISS), (2, (978, 883), MISS), (1, (137, 582), HIT)]
    ],
    "value of the cell": [Session("7\n8", "x = 4\nx + 1", "(_, x, 'value of this cell' in globals())", (5, 4, False), step) for step in (MISS, HIT)],
    "value of the cell that can't be stored": [Session("", "x = 4\nimport threading\nthreading.Lock()", "x", 4, step) for step in (MISS, HIT)],
    "table with attributes": [
        Session("import xarray as xr", "y = xr.Dataset({'a': ('x', [1.])}, attrs={'source': 'lamp', 'variable': 2})", "sorted(y.attrs.items())", [("source", "lamp"), ("variable", 2)], step)
        for step in (MISS, HIT)
    ],
    "variable named in a query": edited("t = pd.DataFrame({'a': [1, 2, 3]})\nk = 1", "y = len(t.query('a > @k'))", "k = 1", "k = 2", "y", (2, 1)),
    "variable named in the query of a function": edited(
        "t = pd.DataFrame({'a': [1, 2, 3]})\nk = 1\ndef f():\n    return len(t.query('a > @k'))", "y = f()", "k = 1", "k = 2", "y", (2, 1)
    ),
    "default taken before a change": [Session("k = 7", "k = 1\ndef f(x=k):\n    return x\nk = 2\ny = f()", "(y, f(), k)", (1, 1, 2), REFUSED)],
    "default taken once": [Session("", "k = 3\ndef f(x=k):\n    return x\ny = f()", "(y, f(), k)", (3, 3, 3), step) for step in (MISS, HIT)],
    "class made from what changes later": [Session("", "n = [1]\nclass A:\n    size = len(n)\nn.append(2)", "(A.size, n)", (1, [1, 2]), REFUSED)],
    "decorator that counts": [
        Session("seen = {'n': 0}\ndef count(f):\n    seen['n'] += 1\n    return f", "@count\ndef g():\n    return 1\ny = g()", "(y, seen)", (1, {"n": 1}), step) for step in (MISS, HIT)
    ],
    "attribute given to a class": [Session("class A:\n    pass", "A.k = 5", "A.k", 5, REFUSED), Session("class A:\n    pass", "A.k = 5", "A.k", 5, REFUSED)],
    "attribute given to a function": [Session("def f():\n    pass", "f.k = 5\ny = 1", "f.k", 5, REFUSED), Session("def f():\n    pass", "f.k = 5\ny = 1", "f.k", 5, REFUSED)],
    "attribute given by a function": [Session("class A:\n    pass\ndef f(c):\n    setattr(c, 'k', 5)", "f(A)", "A.k", 5, REFUSED) for _ in range(2)],
    "default of a function replaced": [Session("def f(x=1):\n    return x", "f.__defaults__ = (2,)", "f()", 2, REFUSED) for _ in range(2)],
    "attribute of an object": [Session("class A:\n    pass\na = A()", "a.k = 5", "a.k", 5, REFUSED) for _ in range(2)],
    "function without a name": [
        Session("k = 2", "f = lambda x: k * x\ny = f(3)", "(y, f(5))", (6, 10), MISS),
        Session("k = 2", "f = lambda x: k * x\ny = f(3)", "(y, f(5))", (6, 10), HIT),
        Session("k = 3", "f = lambda x: k * x\ny = f(3)", "(y, f(5))", (9, 15), MISS),
    ],
    "generator of random numbers": [
        Session(f"rng = {made}({seed})\nother = rng", f"x = rng.{draw}(1000)", f"(int(x), int(rng.{draw}(1000)), other is rng)", value, step)
        for made, draw, one, two in [
            ("np.random.default_rng", "integers", (473, 511, True), (837, 261, True)),
            ("np.random.RandomState", "randint", (37, 235, True), (168, 527, True)),
            ("__import__('random').Random", "randrange", (137, 582, True), (978, 883, True)),
        ]
        for seed, value, step in [(1, one, MISS), (1, one, HIT), (2, two, MISS), (1, one, HIT)]
    ],
    "generator of random numbers that is made": [
        Session("", "rng = np.random.default_rng(1)\nx = rng.integers(1000)", "(int(x), int(rng.integers(1000)), [int(r.integers(1000)) for r in rng.spawn(2)])", (473, 511, [15, 941]), step)
        for step in (MISS, HIT)
    ],
    "one list inside another variable": [Session("", "a = [1]\nb = {'k': a, 't': (a, 2)}", "(a.append(2), b)", (None, {"k": [1, 2], "t": ([1, 2], 2)}), step) for step in (MISS, HIT)],
    "part of a container changed": [
        Session("d = {'x': 1}\no = {'inner': d, 1: [d]}", "o['inner']['k'] = 5", "(d, o, o['inner'] is d, o[1][0] is d)", ({"x": 1, "k": 5}, {"inner": {"x": 1, "k": 5}, 1: [{"x": 1, "k": 5}]}, True, True), step)
        for step in (MISS, HIT)
    ],
    "list that was moved on": [
        Session("a = [1]\nb = [2]\nq = [a, b]", "q.pop(0)\nq[0].append(3)", "(a, b, q, q[0] is b)", ([1], [2, 3], [[2, 3]], True), step) for step in (MISS, HIT)
    ],
    "known object inside a new one": [
        Session("d = [1]\nt = pd.DataFrame({'a': [1]})", "e = {'part': [d, t]}", "(d.append(2), e['part'][0], e['part'][1] is t)", (None, [1, 2], True), step) for step in (MISS, HIT)
    ],
    "object of a function": [
        Session("conf = {'a': [1]}\ndef get():\n    return conf", "c = get()", "(conf['a'].append(2), c)", (None, {"a": [1, 2]}), step) for step in (MISS, HIT)
    ],
    "table in a list changed in place": [
        Session("t = pd.DataFrame({'a': [1]})\nall_of_them = [t]", "t['b'] = 2", "(list(all_of_them[0]), all_of_them[0] is t)", (["a", "b"], True), step) for step in (MISS, HIT)
    ],
    "changed, then bound anew": [
        Session("x = [1]\nother = x", "x.append(2)\ny = [x]\nx = 5", "(x, y, other, y[0] is other)", (5, [[1, 2]], [1, 2], True), step) for step in (MISS, HIT)
    ],
    "walrus in a comprehension": [Session("", "y = [last := v for v in range(3)]", "(y, last)", ([0, 1, 2], 2), step) for step in (MISS, HIT)],
    "variable of a class": same(("k = 1", "class A:\n    k = 5\n    v = [k for _ in range(1)] if False else k\ny = A.v"), ("k = 1", "class A:\n    k = 5\n    v = [k for _ in range(1)] if False else k\ny = A.v"), "y", 5),
    "names in text": edited("x = 1", "y = f'{x}'", "x = 1", "x = 2", "y", ("1", "2")),
    "two cells with the same text": [
        Session("n = 0", "n = n + 1", "n", 1, MISS), Session("n = 1", "n = n + 1", "n", 2, MISS), Session("n = 0\nn = n + 1", "n = n + 1", "n", 2, HIT),
    ],
    "timed as a whole": edited("x = 1", "%%time\ny = x + 1", "x = 1", "x = 2", "y", (2, 3)),
    "cached inside a cached cell": [Session(f"x = {x}", "%%cache lab_store -s -n inner\ny = x + 1", "y", x + 1, REFUSED) for x in (1, 2, 1)],
    "input and output of one name": [Session("x = [3, 1]", "x = sorted(x)", "x", [1, 3], step) for step in (MISS, HIT)],
    "used after it was deleted": [Session("a = 1", "b = a\ndel a\na = b + 1", "(a, b)", (2, 1), step) for step in (MISS, HIT)],
    "function defined above and used below": edited("def g(x):\n    return x + 1", "def f(x):\n    return g(x)\ny = f(1)", "+ 1", "+ 2", "(y, f(2))", ((2, 3), (3, 4))),
    "class made in an earlier cached cell": [
        Session(f"%%cache lab_store -s -n classes\nclass A:\n    k = {k}\n    def g(self):\n        return self.k", "y = A().g()", "y", k, step) for k, step in [(1, MISS), (2, MISS), (1, HIT), (2, HIT)]
    ],
    "function made in an earlier cached cell": [
        Session(f"%%cache lab_store -s -n functions\ndef g(x):\n    return x + {k}", "y = g(1)", "y", 1 + k, step) for k, step in [(1, MISS), (2, MISS), (1, HIT), (2, HIT)]
    ],
    "tag": [Session("", "y = 1", "y", 1, step, option) for option, step in [("-V 1", MISS), ("-V 2", MISS), ("-V 1", HIT), ("", MISS)]],
    "named input": [Session(f"x = {x}", "y = eval('x')", "y", x, step, "-i x") for x, step in [(1, MISS), (2, MISS), (1, HIT)]],
    "copy asked for": [Session("", "a = np.zeros(2)", "(a.fill(1), a.tolist())", (None, [1.0, 1.0]), step, "--copy") for step in (MISS, HIT, HIT)],
    "output left out": [Session("", "y = 1\ny", "y", 1, step, option) for option, step in [("--no-output", MISS), ("--no-output", HIT), ("", MISS), ("", HIT), ("--no-output", HIT)]],
    "all variables at once": [
        Session(f"x = {x}", cell, "y", x, REFUSED) for cell in ("y = locals()['x']", "y = vars()['x']", "y = get_ipython().user_ns['x']", "import __main__\ny = __main__.x") for x in (1, 2)
    ],
    "variables of a function at once": [Session("def f(x):\n    return locals()['x']", "y = f(1)", "y", 1, step) for step in (MISS, HIT)],
    "closure that is filled": [
        Session("def make():\n    seen = []\n    def f(x):\n        seen.append(x)\n        return len(seen)\n    return f\nf = make()", "y = f(1)", "(y, f(1))", (1, 2), REFUSED) for _ in range(2)
    ],
    "default that is filled": [Session("def f(x, seen=[]):\n    seen.append(x)\n    return list(seen)", "y = f(1)", "(y, f(2))", ([1], [1, 2]), REFUSED) for _ in range(2)],
    "iterator that is used up": [Session("i = iter([1, 2, 3])", "y = next(i)", "(y, next(i))", (1, 2), REFUSED) for _ in range(2)],
    "array and its view": [Session("a = np.zeros(3)\nv = a[:2]", "v += 1", "(a.tolist(), v.tolist())", ([1.0, 1.0, 0.0], [1.0, 1.0]), step) for step in (MISS, HIT)],
    "cells of a table assigned": [Session("t = pd.DataFrame({'a': [1, 2, 3]})\nu = t", "t.loc[1, 'a'] = 9\nt.loc[3] = [4]", "(t.a.tolist(), u is t)", ([1, 9, 3, 4], True), step) for step in (MISS, HIT)],
    "coordinates assigned in place": [
        Session("import xarray as xr\nd = xr.Dataset({'a': ('x', [1., 2.])})", "d['b'] = d.a * 2\nd.attrs['unit'] = 'V'", "(d.b.values.tolist(), d.attrs)", ([2.0, 4.0], {"unit": "V"}), step) for step in (MISS, HIT)
    ],
    "set changed in place": [Session("s = {1}\nt = s", "s.add(2)\ns.discard(1)", "(sorted(t), t is s)", ([2], True), step) for step in (MISS, HIT)],
    "deque changed in place": [Session("import collections\nq = collections.deque([1])\nr = q", "q.append(2)", "(list(q), list(r))", ([1, 2], [1, 2]), step) for step in (MISS, HIT)],
    "dictionary with a default": [
        Session("import collections\nd = collections.defaultdict(list)", "d['a'].append(1)", "(dict(d), type(d).__name__)", ({"a": [1]}, "defaultdict"), step) for step in (MISS, HIT)
    ],
    "counter": [Session("import collections", "c = collections.Counter('aab')", "(type(c).__name__, c['a'], c['z'])", ("Counter", 2, 0), step) for step in (MISS, HIT)],
    "pair with names": [Session("import collections\nP = collections.namedtuple('P', 'a b')", "p = P(1, 2)", "(p.a, type(p) is P)", (1, True), step) for step in (MISS, HIT)],
    "datetime and path": [
        Session("import datetime, pathlib", "a = datetime.datetime(2026, 1, 1)\nb = pathlib.PurePosixPath('a')", "(a.year, str(b))", (2026, "a"), step) for step in (MISS, HIT)
    ],
    "masked array": [Session("", "m = np.ma.masked_less(np.arange(3), 1)", "(int(m.sum()), m.mask.tolist())", (3, [True, False, False]), step) for step in (MISS, HIT)],
    "bytes that grow": [Session("b = bytearray(b'a')\nc = b", "b += b'b'", "(bytes(b), c is b)", (b"ab", True), step) for step in (MISS, HIT)],
    "view of an array that is left unchanged": [
        Session("a = np.zeros((2, 3))", "v = a[1, ::-1]\nw = [a.T[1:]]", "(a.__setitem__((1, 2), 5), v.tolist(), w[0].tolist())", (None, [5.0, 0.0, 0.0], [[0.0, 0.0], [0.0, 5.0]]), step) for step in (MISS, HIT)
    ],
    "view of an array that is changed": [Session("a = np.zeros(3)", "a += 1\nv = a[1:]", "(a.__setitem__(1, 5), v.tolist())", (None, [5.0, 1.0]), step) for step in (MISS, HIT)],
    "views among copies": [
        Session("", "a = np.zeros((2, 2))\nv = a[0]\nd = {'k': a[:, 1]}", "(a.__setitem__((0, 1), 5), v.tolist(), d['k'].tolist())", (None, [0.0, 5.0], [5.0, 0.0]), step, "--copy") for step in (MISS, HIT)
    ],
    "kinds of values": [
        Session("", "a = np.arange(3)\nb = (1, 'x', None)\nc = {'k': [1.5]}\nd = pd.Series([1, 2])\ne = {1, 2}",
                "(a.tolist(), b, c, d.tolist(), e)", ([0, 1, 2], (1, "x", None), {"k": [1.5]}, [1, 2], {1, 2}), step)
        for step in (MISS, HIT)
    ],
    "part of an input with a name of its own": [
        Session("d = {'k': [1]}", "b = d['k']", "[b.append(2), d]", [None, {"k": [1, 2]}], step) for step in (MISS, HIT)
    ],
    "array inside an input with a name of its own": [
        Session("d = (1, np.zeros(2))", "b = d[1]", "[b.fill(3), d[1].tolist()]", [None, [3.0, 3.0]], step, "--copy") for step in (MISS, HIT)
    ],
    "object that got another name": [
        Session("a = [1]\nc = {'k': a}", "b = a\na = 2", "[b.append(3), c, a]", [None, {"k": [1, 3]}, 2], step) for step in (MISS, HIT)
    ],
    "object that was changed and got another name": [
        Session("a = [1]\nc = {'k': a}", "a.append(2)\nb = a\na = 3", "[b.append(4), c, a]", [None, {"k": [1, 2, 4]}, 3], step) for step in (MISS, HIT)
    ],
    "table that was changed and got another name": [
        Session("t = pd.DataFrame({'x': [1]})\nc = [t]\nu = t", "t['y'] = 2\nb = t\nt = 0", "[list(c[0]), list(u), list(b)]", [["x", "y"]] * 3, step) for step in (MISS, HIT)
    ],
    "changed, then its name given to another": [
        Session("a = [1]\nc = a", "a.append(2)\na = 5", "(a, c)", (5, [1, 2]), step) for step in (REFUSED, REFUSED)
    ],
    "changed by a function, then deleted": [
        Session("a = (1, [2])\nc = a[1]\ndef add(x):\n    x[1].append(3)", "add(a)\ndel a\na = 5", "(a, c)", (5, [2, 3]), step) for step in (REFUSED, REFUSED)
    ],
    "changed, then its name given to another, and known to others later": [
        Session("a = {'k': [1]}", "a['m'] = 2\na = len(a)", "a", 2, MISS),
        Session("a = {'k': [1]}", "a['m'] = 2\na = len(a)", "a", 2, HIT),
        Session("a = {'k': [1]}\nc = [a]", "a['m'] = 2\na = len(a)", "(a, c)", (2, [{"k": [1], "m": 2}]), REFUSED),
    ],
    "queue changed in place that has two names": [
        Session("import collections\na = collections.deque([1])\nc = [a]", "a.append([2])\nb = a\na = [b]", "[b.append(3), len(c[0]), len(a[0])]", [None, 3, 3], step) for step in (MISS, HIT)
    ],
    "lines of a command": [
        Session("", "k = !printf 'a 1\\nb 2\\n'", "[k.fields(1).l, type(k).__name__]", [["1", "2"], "SList"], step) for step in (MISS, HIT)
    ],
    "lines of a command that are read": edited("k = !echo 1", "y = k[0]", "echo 1", "echo 2", "y", ("1", "2")),
}  # fmt: skip
