# ruff: noqa: E501 (programs on one line)
"""Situations in which caches go wrong: each a sequence of programs with what is right for each of them.

A step is the text of a program (and of modules beside it), an expression, its value, and whether the
result must be computed or come from the cache; for what is refused, the value is a part of the message. The
steps of a trap run in different processes.
"""

from __future__ import annotations

from typing import NamedTuple

MISS, HIT, REFUSED = "miss", "hit", "refused"


class Step(NamedTuple):
    program: str
    call: str
    value: object
    expected: str
    modules: dict[str, str] | None = None


def edited(first: str, second: str, call: str, before: object, after: object) -> list[Step]:
    """An edit that matters, and back again."""
    return [
        Step(first, call, before, MISS),
        Step(second, call, after, MISS),
        Step(first, call, before, HIT),
        Step(second, call, after, HIT),
    ]


def same(first: str, second: str, call: str, value: object) -> list[Step]:
    """An edit that does not matter."""
    return [Step(first, call, value, MISS), Step(second, call, value, HIT)]


def replaced(program: str, old: str, new: str) -> tuple[str, str]:
    assert old in program
    return program, program.replace(old, new)


def module(first: str, second: str, program: str, call: str, before: object, after: object) -> list[Step]:
    """An edit in a module beside the program."""
    return [
        Step(program, call, before, MISS, {"helpers": first}),
        Step(program, call, after, MISS, {"helpers": second}),
        Step(program, call, before, HIT, {"helpers": first}),
    ]


F = "@C\ndef f(x):\n    return g(x)\n"
NEST = "def h(x):\n    return x + 1\ndef g(x):\n    return h(x)\n" + F
CLOSURE = "def make(k):\n    def f(x):\n        return x * k\n    return C(f)\nf = make(2)\n"
CLASS = "class Model:\n    gain = 2\n    def run(self, x):\n        return self.gain * x\n@C\ndef f(x):\n    return Model().run(x)\n"
BASE = "class Base:\n    def run(self, x):\n        return x + 1\nclass Model(Base):\n    pass\n@C\ndef f(x):\n    return Model().run(x)\n"
METHOD = "class Model:\n    def __init__(self, k):\n        self.k = k\n    @C\n    def run(self, x):\n        return self.k * x\n"
WRAPPED = (
    "import functools\ndef twice(function):\n    @functools.wraps(function)\n    def wrapper(x):\n"
    "        return 2 * function(x)\n    return wrapper\n@twice\ndef g(x):\n    return x + 1\n" + F
)
MUTUAL = (
    "def even(n):\n    return True if n == 0 else odd(n - 1)\n"
    "def odd(n):\n    return False if n == 0 else even(n - 1)\n@C\ndef f(n):\n    return even(n)\n"
)
SUM = "@C\ndef f(x):\n    return float(np.sum(x * np.arange(x.size).reshape(x.shape)))\n"
KIND = "@C\ndef f(x):\n    return type(x).__name__\n"
TEXT = "@C\ndef f(*args, **kwargs):\n    return repr((args, sorted(kwargs.items())))\n"

TRAPS: dict[str, list[Step]] = {
    "body edited": edited(*replaced("@C\ndef f(x):\n    return x + 1\n", "+ 1", "+ 2"), "f(1)", 2, 3),
    "comment and layout edited": same(
        "@C\ndef f(x):\n    return x + 1\n", "# new\n\n\n@C\ndef f( x ):  # why\n\n    return (x\n      + 1)\n", "f(1)", 2
    ),
    "docstring edited": same("@C\ndef f(x):\n    'a'\n    return x\n", "@C\ndef f(x):\n    'b'\n    return x\n", "f(1)", 1),
    "docstring that is read": edited(
        *replaced("@C\ndef f():\n    'a'\n    return g.__doc__\ndef g():\n    'one'\n", "'one'", "'two'"), "f()", "one", "two"
    ),
    "helper edited": edited(*replaced("def g(x):\n    return x + 1\n" + F, "+ 1", "+ 2"), "f(1)", 2, 3),
    "helper of a helper edited": edited(*replaced(NEST, "+ 1", "+ 2"), "f(1)", 2, 3),
    "helper in a module edited": module(
        "def g(x):\n    return x + 1\n", "def g(x):\n    return x + 2\n", "from helpers import g\n" + F, "f(1)", 2, 3
    ),
    "module attribute edited": module(
        "def g(x):\n    return h(x)\ndef h(x):\n    return x + 1\n",
        "def g(x):\n    return h(x)\ndef h(x):\n    return x + 2\n",
        "import helpers\n@C\ndef f(x):\n    return helpers.g(x)\n", "f(1)", 2, 3,
    ),
    "constant in a module edited": module(
        "K = 1\n", "K = 2\n", "import helpers as hp\n@C\ndef f(x):\n    return hp.K + x\n", "f(1)", 2, 3
    ),
    "unrelated part of a module edited": [
        Step("import helpers\n@C\ndef f(x):\n    return helpers.g(x)\n", "f(1)", 1, MISS, {"helpers": "def g(x): return x\nK = 1\n"}),
        Step("import helpers\n@C\ndef f(x):\n    return helpers.g(x)\n", "f(1)", 1, HIT, {"helpers": "def g(x): return x\nK = 2\n"}),
    ],
    "module imported inside the function": module(
        "def g(x):\n    return x + 1\n", "def g(x):\n    return x + 2\n",
        "@C\ndef f(x):\n    from helpers import g\n    return g(x)\n", "f(1)", 2, 3,
    ),
    "whole module imported inside the function": module(
        "def g(x):\n    return x + 1\n", "def g(x):\n    return x + 2\n",
        "@C\ndef f(x):\n    import helpers\n    return helpers.g(x)\n", "f(1)", 2, 3,
    ),
    "attribute asked for by name": module(
        "def g(x):\n    return x + 1\n", "def g(x):\n    return x + 2\n",
        "import helpers\n@C\ndef f(x):\n    return getattr(helpers, 'g')(x)\n", "f(1)", 2, 3,
    ),
    "global changed": edited(*replaced("K = 1\n@C\ndef f(x):\n    return x + K\n", "K = 1", "K = 2"), "f(1)", 2, 3),
    "global container changed": edited(
        *replaced("K = {'a': [1]}\n@C\ndef f(x):\n    return x + K['a'][0]\n", "[1]", "[2]"), "f(1)", 2, 3
    ),
    "global mutated between calls": [
        Step("K = [1]\n@C\ndef f(x):\n    return x + sum(K)\n", "[f(1), K.append(5), f(1), K.pop(), f(1)]", [2, None, 7, 5, 2], MISS)
    ],
    "global read by a helper": edited(
        *replaced("K = 1\ndef g(x):\n    return x + K\n" + F, "K = 1", "K = 2"), "f(1)", 2, 3
    ),
    "global that is not read": same("K = 1\n@C\ndef f(x):\n    return x\n", "K = 2\n@C\ndef f(x):\n    return x\n", "f(1)", 1),
    "closure changed": edited(*replaced(CLOSURE, "make(2)", "make(3)"), "f(2)", 4, 6),
    "default changed": edited(*replaced("@C\ndef f(x, k=1):\n    return x + k\n", "k=1", "k=2"), "f(1)", 2, 3),
    "default of a function that calls itself": edited(
        *replaced("@C\ndef f(x, k=1):\n    return k if x == 0 else f(x - 1)\n", "k=1", "k=2"), "f(1, 7)", 1, 2
    ),
    "default given": same(*replaced("@C\ndef f(x, k=1):\n    return x + k\n", "k=1", "k=5"), "f(1, 1)", 2),
    "default of a helper changed": edited(
        *replaced("def g(x, k=1):\n    return x + k\n" + F, "k=1", "k=2"), "f(1)", 2, 3
    ),
    "class body changed": edited(*replaced(CLASS, "gain = 2", "gain = 3"), "f(2)", 4, 6),
    "method of a class changed": edited(*replaced(CLASS, "gain * x", "gain + x"), "f(3)", 6, 5),
    "base class changed": edited(*replaced(BASE, "+ 1", "+ 2"), "f(1)", 2, 3),
    "property changed": edited(
        *replaced("class A:\n    @property\n    def p(self):\n        return 1\n@C\ndef f():\n    return A().p\n", "return 1", "return 2"),
        "f()", 1, 2,
    ),
    "static method changed": edited(
        *replaced("class A:\n    @staticmethod\n    def s():\n        return 1\n@C\ndef f():\n    return A.s()\n", "return 1", "return 2"),
        "f()", 1, 2,
    ),
    "state of a method's object": [
        Step(METHOD, "[Model(2).run(3), Model(4).run(3), Model(2).run(3)]", [6, 12, 6], MISS),
        Step(METHOD, "Model(2).run(3)", 6, HIT),
    ],
    "decorated helper edited": edited(*replaced(WRAPPED, "x + 1", "x + 2"), "f(1)", 4, 6),
    "decorator of a helper edited": edited(*replaced(WRAPPED, "2 * function", "3 * function"), "f(1)", 4, 6),
    "cached helper edited": edited(*replaced("@C\ndef g(x):\n    return x + 1\n" + F, "+ 1", "+ 2"), "f(1)", 2, 3),
    "helper under lru_cache edited": edited(
        *replaced("import functools\n@functools.lru_cache\ndef g(x):\n    return x + 1\n" + F, "+ 1", "+ 2"), "f(1)", 2, 3
    ),
    "context manager edited": edited(
        *replaced("import contextlib\n@contextlib.contextmanager\ndef g():\n    yield 1\n@C\ndef f():\n    with g() as v:\n        return v\n", "yield 1", "yield 2"),
        "f()", 1, 2,
    ),
    "mutual recursion edited": edited(*replaced(MUTUAL, "return False", "return None"), "f(3)", False, None),
    "nested function edited": edited(
        *replaced("@C\ndef f(x):\n    def g(y):\n        return y + 1\n    return g(x)\n", "+ 1", "+ 2"), "f(1)", 2, 3
    ),
    "function in a table edited": edited(
        *replaced("def g(x):\n    return x + 1\nT = {'a': g}\n@C\ndef f(x):\n    return T['a'](x)\n", "+ 1", "+ 2"), "f(1)", 2, 3
    ),
    "function that is in the table it reads": same(
        "def f(x):\n    return len(T)\nT = {'f': f}\nf = C(f)\n", "def f(x):\n    return len(T)\n\nT = {'f': f}\nf = C(f)\n", "f(1)", 1
    ),
    "attribute of a function changed": edited(
        *replaced("def g(x):\n    return x\ng.k = 1\n@C\ndef f(x):\n    return g.k\n", "g.k = 1", "g.k = 2"), "f(1)", 1, 2
    ),
    "name bound to another function": edited(
        *replaced("def a(x):\n    return 'a'\ndef b(x):\n    return 'b'\ng = a\n@C\ndef f(x):\n    return (g(x), a(x), b(x))\n", "g = a", "g = b"),
        "f(1)", ("a", "a", "b"), ("b", "a", "b"),
    ),
    "two lambdas in a line": [
        Step("f, g = C(lambda x: x + 1), C(lambda x: x + 2)\n", "(f(1), g(1))", (2, 3), MISS),
        Step("f, g = C(lambda x: x + 1), C(lambda x: x + 2)\n", "(f(1), g(1))", (2, 3), HIT),
    ],
    "lambda passed as an argument": edited(
        *replaced("@C\ndef f(g):\n    return g(1)\nv = lambda x: x + 1\n", "+ 1", "+ 2"), "f(v)", 2, 3
    ),
    "partial passed as an argument": edited(
        *replaced("import functools\ndef g(k, x):\n    return k * x\n@C\ndef f(h):\n    return h(3)\nv = functools.partial(g, 2)\n", "(g, 2)", "(g, 5)"),
        "f(v)", 6, 15,
    ),
    "same name, other function": [
        Step("@C\ndef f(x):\n    return x + 1\ng = f\n@C\ndef f(x):\n    return x + 2\n", "(g(1), f(1))", (2, 3), MISS)
    ],
    "two functions in a store": [
        Step("@C\ndef f(x):\n    return x + 1\n@C\ndef g(x):\n    return x + 2\n", "(f(1), g(1), f(1))", (2, 3, 2), MISS)
    ],
    "kinds of numbers": [
        Step(KIND, "[f(v) for v in (1, True, 1.0, '1', (1,), [1], None, np.int64(1), np.float64(1))]",
             ["int", "bool", "float", "str", "tuple", "list", "NoneType", "int64", "float64"], MISS)
    ],
    "signed zero and nan": [
        Step("@C\ndef f(x):\n    return repr(x)\n", "[f(0.0), f(-0.0), f(float('nan')), f(float('nan'))]", ["0.0", "-0.0", "nan", "nan"], MISS)
    ],
    "position and keyword": [
        Step("@C\ndef f(x, k=1):\n    return x + k\n", "f(1, 2)", 3, MISS),
        Step("@C\ndef f(x, k=1):\n    return x + k\n", "f(k=2, x=1)", 3, HIT),
    ],
    "argument name and value": [
        Step(TEXT, "[f('a', b=1), f(a='b'), f(('a',)), f('a', ('b', 1)), f('ab'), f('a', 'b')]",
             ["(('a',), [('b', 1)])", "((), [('a', 'b')])", "((('a',),), [])", "(('a', ('b', 1)), [])", "(('ab',), [])", "(('a', 'b'), [])"], MISS)
    ],
    "order of a dictionary": same(
        "@C\ndef f(d):\n    return sum(d.values())\nv = {'a': 1, 'b': 2}\n", "@C\ndef f(d):\n    return sum(d.values())\nv = {'b': 2, 'a': 1}\n", "f(v)", 3
    ),
    "set of texts in another process": same(
        "@C\ndef f(s):\n    return len(s)\nv = {str(i) for i in range(100)}\n", "@C\ndef f(s):\n    return len(s)\nv = {str(99 - i) for i in range(100)}\n", "f(v)", 100
    ),
    "array transposed": [
        Step(SUM, "[f(np.arange(6.).reshape(2, 3)), f(np.arange(6.).reshape(3, 2).T), f(np.arange(6.).reshape(2, 3))]",
             [55.0, 50.0, 55.0], MISS)
    ],
    "array with other strides": same(SUM + "v = np.arange(5.)\n", SUM + "v = np.arange(10.)[::2] / 2\n", "f(v)", 30.0),
    "one element of two million": edited(
        *replaced("@C\ndef f(x):\n    return float(x.sum())\nv = np.zeros(2_000_000)\nv[1_234_567] = 1\n", "= 1\n", "= 2\n"), "f(v)", 1.0, 2.0
    ),
    "array of another type": edited(
        *replaced("@C\ndef f(x):\n    return str(x.dtype)\nv = np.zeros(3, 'i4')\n", "'i4'", "'f4'"), "f(v)", "int32", "float32"
    ),
    "array of another shape": edited(
        *replaced("@C\ndef f(x):\n    return x.shape\nv = np.zeros((2, 3))\n", "(2, 3)", "(3, 2)"), "f(v)", (2, 3), (3, 2)
    ),
    "array of objects": edited(
        *replaced("@C\ndef f(x):\n    return str(x[1])\nv = np.array([1, 'a'], object)\n", "'a'", "'b'"), "f(v)", "a", "b"
    ),
    "columns renamed": edited(
        *replaced("@C\ndef f(d):\n    return list(d.columns)\nv = pd.DataFrame({'a': [1], 'b': [2]})\n", "'b'", "'c'"), "f(v)", ["a", "b"], ["a", "c"]
    ),
    "index relabelled": edited(
        *replaced("@C\ndef f(d):\n    return list(d.index)\nv = pd.DataFrame({'a': [1, 2]}, index=[0, 1])\n", "[0, 1]", "[0, 2]"), "f(v)", [0, 1], [0, 2]
    ),
    "column of another type": edited(
        *replaced("@C\ndef f(d):\n    return str(d.dtypes['a'])\nv = pd.DataFrame({'a': np.array([1], 'i8')})\n", "'i8'", "'i4'"), "f(v)", "int64", "int32"
    ),
    "text in a table": edited(
        *replaced("@C\ndef f(d):\n    return '|'.join(d['a'])\nv = pd.DataFrame({'a': ['x', 'yz']})\n", "['x', 'yz']", "['xy', 'z']"), "f(v)", "x|yz", "xy|z"
    ),
    "coordinates moved": edited(
        *replaced("import xarray as xr\n@C\ndef f(d):\n    return float(d.t[0])\nv = xr.DataArray([1., 2.], dims='t', coords={'t': [0, 1]})\n", "[0, 1]", "[3, 4]"),
        "f(v)", 0.0, 3.0,
    ),
    "result with attributes": [
        Step("import xarray as xr\n@C\ndef f():\n    return xr.Dataset({'a': ('t', [1.])}, attrs={'function': 'gain', 'k': 2})\n", "sorted(f().attrs.items())", [("function", "gain"), ("k", 2)], outcome)
        for outcome in (MISS, HIT)
    ],
    "variable named in a query": edited(
        *replaced("k = 1\nv = pd.DataFrame({'a': [1, 2, 3]})\n@C\ndef f():\n    return len(v.query('a > @k'))\n", "k = 1", "k = 2"), "f()", 2, 1
    ),
    "dataclass as an argument": edited(
        *replaced("import dataclasses\n@dataclasses.dataclass\nclass P:\n    k: int = 1\n    def run(self):\n        return self.k * 10\n@C\ndef f(p):\n    return p.run()\nv = P()\n", "* 10", "* 20"),
        "f(v)", 10, 20,
    ),
    "field of a dataclass": [
        Step("import dataclasses\n@dataclasses.dataclass\nclass P:\n    k: int = 1\n@C\ndef f(p):\n    return p.k\n", "[f(P(1)), f(P(2)), f(P(1))]", [1, 2, 1], MISS)
    ],
    "enumeration": [
        Step("import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n@C\ndef f(e):\n    return e.name\n", "[f(E.A), f(E.B)]", ["A", "B"], MISS),
        Step("import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n@C\ndef f(e):\n    return e.name\n", "[f(E.A), f(E.B)]", ["A", "B"], HIT),
    ],
    "cached property filled": [
        Step("import functools\nclass A:\n    @functools.cached_property\n    def p(self):\n        return 1\n@C\ndef f(a):\n    return 5\na = A()\n", "[f(a), a.p, f(a), f._core.counts['misses']]", [5, 1, 5, 2], MISS)
    ],
    "argument mutated by the function": [
        Step("@C\ndef f(x):\n    x.append(1)\n    return len(x)\n", "[f([]), f([]), f([1])]", [1, 1, 2], MISS),
    ],
    "argument mutated afterwards": [
        Step("@C\ndef f(x):\n    return x\na = np.zeros(3)\n", "[float(f(a).sum()), a.fill(1), float(f(a).sum()), float(f(np.zeros(3)).sum())]", [0.0, None, 3.0, 0.0], MISS)
    ],
    "result mutated afterwards": [
        Step("@C\ndef f():\n    return {'a': np.zeros(2)}\ndef change(d):\n    d['b'] = 1\n    try:\n        d['a'][0] = 9\n    except ValueError:\n        pass\n", "[change(f()), change(f()), {name: x.tolist() for name, x in f().items()}]", [None, None, {"a": [0.0, 0.0]}], MISS)
    ],
    "exception": [
        Step("L = []\ndef f(x):\n    if not L:\n        L.append(1)\n        raise ValueError('once')\n    return x\nf = cached(store, 'L')(f)\ndef t(x):\n    try:\n        return f(x)\n    except ValueError:\n        return 'raised'\n", "[t(1), t(1), t(1)]", ["raised", 1, 1], MISS)
    ],
    "awaited": [
        Step("import asyncio\n@C\nasync def f(x):\n    await asyncio.sleep(0)\n    return x + 1\n", "asyncio.run(f(1))", 2, MISS),
        Step("import asyncio\n@C\nasync def f(x):\n    await asyncio.sleep(0)\n    return x + 1\n", "asyncio.run(f(1))", 2, HIT),
    ],
    "random generator as an argument": [
        Step("@C\ndef f(r):\n    return r.integers(1000)\n", "bool(f(np.random.default_rng(1)) == f(np.random.default_rng(1)) != f(np.random.default_rng(2)))", True, MISS)
    ],
    "version raised": [
        Step("f = cached(store, version=1)(lambda x: x)\n", "f(1)", 1, MISS),
        Step("f = cached(store, version=2)(lambda x: x)\n", "f(1)", 1, MISS),
        Step("f = cached(store, version=1)(lambda x: x)\n", "f(1)", 1, HIT),
    ],
    "ignored parameter": [
        Step("@cached(store, ignore_kwargs='loud')\ndef f(x, loud=False):\n    return x\n", "f(1)", 1, MISS),
        Step("@cached(store, ignore_kwargs='loud')\ndef f(x, loud=False):\n    return x\n", "f(1, loud=open)", 1, HIT),
    ],
    "kinds of results": [
        Step("V = [1, True, 2.5, 'a', None, b'x', (1, 'b'), [1.5], {'k': (1,)}, {1, 2}, 1j]\n@C\ndef f(i):\n    return V[i]\n", "[f(i) for i in range(11)]",
             [1, True, 2.5, "a", None, b"x", (1, "b"), [1.5], {"k": (1,)}, {1, 2}, 1j], step)
        for step in (MISS, HIT)
    ],
    "class passed as an argument": edited(
        *replaced("class A:\n    k = 1\n@C\ndef f(c):\n    return c.k\n", "k = 1", "k = 2"), "f(A)", 1, 2
    ),
    "bound method passed as an argument": edited(
        *replaced("class A:\n    def __init__(self, k):\n        self.k = k\n    def g(self):\n        return self.k\n@C\ndef f(m):\n    return m()\n", "= k", "= k + 1"),
        "f(A(1).g)", 1, 2,
    ),
    "super in a method": edited(
        *replaced("class A:\n    def g(self):\n        return 1\nclass B(A):\n    def g(self):\n        return super().g() + 1\n@C\ndef f():\n    return B().g()\n", "return 1", "return 5"),
        "f()", 2, 6,
    ),
    "slots": [
        Step("class A:\n    __slots__ = ('k',)\n    def __init__(self, k):\n        self.k = k\n@C\ndef f(a):\n    return a.k\n", "[f(A(1)), f(A(2))]", [1, 2], MISS)
    ],
}  # fmt: skip
