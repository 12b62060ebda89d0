# ruff: noqa: E501 (programs on one line)
"""Situations in which what a function depends on is hard to see."""

from __future__ import annotations

from cache_traps import HIT, MISS, REFUSED, F, Step, edited, module, replaced, same


def S(
    program: str, call: str, value: object, expected: str = MISS, modules: dict[str, str] | None = None
) -> Step:
    return Step(program, call, value, expected, modules)


def mods(
    program: str, call: str, before: object, after: object, a: dict[str, str], b: dict[str, str]
) -> list[Step]:
    """An edit in one of several modules, and back again."""
    return [
        S(program, call, before, MISS, a),
        S(program, call, after, MISS, b),
        S(program, call, before, HIT, a),
    ]


def lib(version: str, value: int) -> dict[str, str]:
    """An installed library, with its metadata."""
    return {
        "site-packages/fakelib/__init__": f"def g(x): return {value}\n",
        f"site-packages/fakelib-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: fakelib\nVersion: {version}\n",
    }


SD = "import functools\n@functools.singledispatch\ndef g(x):\n    return 'any'\n@g.register\ndef _(x: int):\n    return 'int'\n"
RE = "space = dict(C=C, __name__='__main__')\ndef do(text):\n    exec(text, space)\n    return space.get('r')\n"
LIB = "import fakelib\n@C\ndef f(x):\n    return fakelib.g(x)\n"

TRAPS: dict[str, list[Step]] = {
    "root partial": edited(*replaced("import functools\ndef g(k, x):\n    return k * x\nf = C(functools.partial(g, 2))\n", "(g, 2)", "(g, 3)"), "f(3)", 6, 9),
    "root partial body": edited(*replaced("import functools\ndef g(k, x):\n    return k * x\nf = C(functools.partial(g, 2))\n", "k * x", "k + x"), "f(3)", 6, 5),
    "root callable": edited(*replaced("class Scale:\n    def __init__(self, k):\n        self.k = k\n    def __call__(self, x):\n        return self.k * x\nf = C(Scale(2))\n", "(2)", "(3)"), "f(3)", 6, 9),
    "root callable body": edited(*replaced("class Scale:\n    def __init__(self, k):\n        self.k = k\n    def __call__(self, x):\n        return self.k * x\nf = C(Scale(2))\n", "self.k * x", "self.k + x"), "f(3)", 6, 5),
    "root lru": edited(*replaced("import functools\n@C\n@functools.lru_cache\ndef f(x):\n    return x + 1\n", "+ 1", "+ 2"), "f(1)", 2, 3),
    "root vectorize": edited(*replaced("f = C(np.vectorize(lambda x: x + 1))\n", "+ 1", "+ 2"), "f(1).tolist()", 2, 3),
    "root bound method": edited(*replaced("class A:\n    def __init__(self, k):\n        self.k = k\n    def g(self, x):\n        return self.k * x\nf = C(A(2).g)\n", "A(2)", "A(3)"), "f(3)", 6, 9),
    "root singledispatch": edited(*replaced("import functools\n@functools.singledispatch\ndef g(x):\n    return 'any'\n@g.register\ndef _(x: int):\n    return 'int'\nf = C(g)\n", "'int'", "'INT'"), "f(1)", "int", "INT"),
    "partial method": edited(*replaced("import functools\nclass A:\n    def g(self, k, x):\n        return k * x\n    h = functools.partialmethod(g, 2)\n@C\ndef f(x):\n    return A().h(x)\n", "(g, 2)", "(g, 3)"), "f(3)", 6, 9),
    "nested partial": edited(*replaced("import functools\ndef g(k, j, x):\n    return k * x + j\nh = functools.partial(functools.partial(g, 2), 1)\n@C\ndef f(x):\n    return h(x)\n", "(g, 2)", "(g, 3)"), "f(3)", 7, 10),
    "partial of a method": edited(*replaced("import functools\nclass A:\n    def __init__(self, k):\n        self.k = k\n    def g(self, j, x):\n        return self.k * x + j\nh = functools.partial(A(2).g, 1)\n@C\ndef f(x):\n    return h(x)\n", "A(2)", "A(3)"), "f(3)", 7, 10),
    "singledispatch edited": edited(*replaced(SD + F, "'int'", "'INT'"), "f(1)", "int", "INT"),
    "singledispatch registered later": [S(SD + F, "[f('a'), g.register(str)(lambda x: 'text') and None, f('a')]", ["any", None, "text"])],
    "singledispatch abc": [S("import functools, collections.abc\n@functools.singledispatch\ndef g(x):\n    return 'any'\n@g.register\ndef _(x: collections.abc.Sequence):\n    return 'seq'\n" + F, "f([1])", "seq", MISS), S("import functools, collections.abc\nclass Z: pass\ncollections.abc.Sequence.register(Z)\n@functools.singledispatch\ndef g(x):\n    return 'any'\n@g.register\ndef _(x: collections.abc.Sequence):\n    return 'seq'\ng([1])\n" + F, "f([1])", "seq", HIT)],
    "singledispatchmethod": edited(*replaced("import functools\nclass A:\n    @functools.singledispatchmethod\n    def g(self, x):\n        return 'any'\n    @g.register\n    def _(self, x: int):\n        return 'int'\n@C\ndef f(x):\n    return A().g(x)\n", "'int'", "'INT'"), "f(1)", "int", "INT"),
    "class and object redefined in session": [S(RE, "[do('class M:\\n    def run(self): return 1\\nm = M()\\n@C\\ndef f(): return m.run()\\nr = f()'), do('class M:\\n    def run(self): return 2\\nm = M()\\nr = f()')]", [1, 2])],
    "function in a list redefined": [S(RE, "[do('def g(): return 1\\nT = [g]\\n@C\\ndef f(): return T[0]()\\nr = f()'), do('def g(): return 2\\nT = [g]\\nr = f()'), do('def g(): return 3\\nT[0] = g\\nr = f()')]", [1, 2, 3])],
    "partial redefined": [S(RE, "[do('import functools\\ndef g(x): return 1\\nT = functools.partial(g, 2)\\n@C\\ndef f(): return T()\\nr = f()'), do('def g(x): return 2\\nT = functools.partial(g, 2)\\nr = f()')]", [1, 2])],
    "lambda list replaced": [S(RE, "[do('T = {\"a\": lambda: 1}\\n@C\\ndef f(): return T[\"a\"]()\\nr = f()'), do('T = {\"a\": lambda: 2}\\nr = f()'), do('T[\"a\"] = lambda: 3\\nr = f()')]", [1, 2, 3])],
    "closure of foreign wrapper": [S(RE, "[do('import contextlib\\nK = [1]\\n@contextlib.contextmanager\\ndef g(): yield K[0]\\n@C\\ndef f():\\n    with g() as v: return v\\nr = f()'), do('K[0] = 2\\nr = f()'), do('K = [3]\\nr = f()')]", [1, 2, 3])],
    "bases assigned": [S("class A:\n    def g(self): return 1\nclass A2:\n    def g(self): return 2\nclass B(A): pass\n@C\ndef f(): return B().g()\ndef change():\n    B.__bases__ = (A2,)\n", "[f(), change(), f()]", [1, None, 2])],
    "kwdefaults mutated": [S("def g(*, k=1): return k\n@C\ndef f(): return g()\ndef change():\n    g.__kwdefaults__['k'] = 2\n", "[f(), change(), f()]", [1, None, 2])],
    "class attribute object mutated": [S("class P:\n    def __init__(self): self.k = 1\nclass M:\n    p = P()\n@C\ndef f(): return M.p.k\ndef change():\n    M.p.k = 2\n", "[f(), change(), f()]", [1, None, 2])],
    "instance method patched": [S("class M:\n    def g(self): return 1\nm = M()\n@C\ndef f(): return m.g()\ndef change():\n    m.g = lambda: 2\n", "[f(), change(), f()]", [1, None, 2])],
    "object class assigned": [S("class M:\n    def g(self): return 1\nclass N:\n    def g(self): return 2\nm = M()\n@C\ndef f(): return m.g()\ndef change():\n    m.__class__ = N\n", "[f(), change(), f()]", [1, None, 2])],
    "own default mutated": [S("def f(x, k=1): return x + k\nf = C(f)\ndef change():\n    f.__wrapped__.__defaults__ = (5,)\n", "[f(1), change(), f(1)]", [2, None, 6])],
    "own default list mutated": [S("@C\ndef f(x, acc=[]):\n    return x + len(acc)\ndef change():\n    f.__wrapped__.__defaults__[0].append(1)\n", "[f(1), change(), f(1)]", [1, None, 2])],
    "attribute of the cached function": [S("@C\ndef f(x):\n    return x + f.k\nf.k = 1\ndef change():\n    f.k = 5\n", "[f(1), change(), f(1)]", [2, None, 6])],
    "import in function, parent package": [S("@C\ndef f(x):\n    import pk.b\n    return pk.K + x\n", "f(1)", 2, MISS, {"pk/__init__": "K = 1\n", "pk/b": ""}), S("@C\ndef f(x):\n    import pk.b\n    return pk.K + x\n", "f(1)", 3, MISS, {"pk/__init__": "K = 2\n", "pk/b": ""})],
    "import in function, sibling module": [S("@C\ndef f(x):\n    import pk.b\n    return pk.c.g() + x\n", "f(1)", 2, MISS, {"pk/__init__": "from . import c\n", "pk/b": "", "pk/c": "def g(): return 1"}), S("@C\ndef f(x):\n    import pk.b\n    return pk.c.g() + x\n", "f(1)", 3, MISS, {"pk/__init__": "from . import c\n", "pk/b": "", "pk/c": "def g(): return 2"})],
    "package submodule as": mods("import pk.b as c\n@C\ndef f():\n    return c.g()\n", "f()", 1, 2, {"pk/__init__": "", "pk/b": "def g(): return 1"}, {"pk/__init__": "", "pk/b": "def g(): return 2"}),
    "package submodule dotted": mods("import pk.b\n@C\ndef f():\n    return pk.b.g()\n", "f()", 1, 2, {"pk/__init__": "", "pk/b": "def g(): return 1"}, {"pk/__init__": "", "pk/b": "def g(): return 2"}),
    "relative import": mods("from pk.a import h\n@C\ndef f():\n    return h()\n", "f()", 1, 2, {"pk/__init__": "", "pk/a": "from .b import g\nfrom . import b\ndef h(): return g()", "pk/b": "def g(): return 1"}, {"pk/__init__": "", "pk/a": "from .b import g\nfrom . import b\ndef h(): return g()", "pk/b": "def g(): return 2"}),
    "relative import inside": mods("from pk.a import h\n@C\ndef f():\n    return h()\n", "f()", 1, 2, {"pk/__init__": "", "pk/a": "def h():\n    from . import b\n    return b.g()", "pk/b": "def g(): return 1"}, {"pk/__init__": "", "pk/a": "def h():\n    from . import b\n    return b.g()", "pk/b": "def g(): return 2"}),
    "relative import inside 2": mods("from pk.sub.a import h\n@C\ndef f():\n    return h()\n", "f()", 1, 2, {"pk/__init__": "", "pk/sub/__init__": "", "pk/sub/a": "def h():\n    from ..b import g\n    return g()", "pk/b": "def g(): return 1"}, {"pk/__init__": "", "pk/sub/__init__": "", "pk/sub/a": "def h():\n    from ..b import g\n    return g()", "pk/b": "def g(): return 2"}),
    "star import": module("def g(x):\n    return x + 1\n", "def g(x):\n    return x + 2\n", "from helpers import *\n" + F, "f(1)", 2, 3),
    "import_module": [S("import importlib\n@C\ndef f(x):\n    return importlib.import_module('helpers').g(x)\n", "f(1)", "uses importlib.import_module", REFUSED, {"helpers": "def g(x): return 2"})],
    "import_module dynamic": [S("import importlib\n@C\ndef f(x, n):\n    return importlib.import_module(n).g(x)\n", "f(1, 'helpers')", "import_module", REFUSED, {"helpers": "def g(x): return 2"})],
    "sys.modules": [S("import sys, helpers\n@C\ndef f(x):\n    return sys.modules['helpers'].g(x)\n", "f(1)", "sys.modules", REFUSED, {"helpers": "def g(x): return 2"})],
    "__globals__": [S("K = 1\ndef g(): pass\n@C\ndef f(x):\n    return g.__globals__['K']\n", "f(1)", "__globals__", REFUSED)],
    "subclasses": [S("class A: pass\nclass B(A):\n    k = 1\n@C\ndef f():\n    return [c.k for c in A.__subclasses__()]\n", "f()", "__subclasses__", REFUSED)],
    "getframe": [S("import sys\nK = 1\n@C\ndef f():\n    return sys._getframe().f_globals['K']\n", "f()", "f_globals", REFUSED)],
    "pd.eval": [S("K = 1\n@C\ndef f():\n    return pd.eval('K + 1')\n", "f()", "eval", REFUSED)],
    "stdlib shadowed": mods("import colorsys\n@C\ndef f():\n    return colorsys.g()\n", "f()", 1, 2, {"colorsys": "def g(): return 1"}, {"colorsys": "def g(): return 2"}),
    "builtin replaced": edited("@C\ndef f(x):\n    return abs(x)\n", "def abs(x):\n    return 7\n@C\ndef f(x):\n    return abs(x)\n", "f(-1)", 1, 7),
    "lambda giving lambda": edited(*replaced("h = lambda a, b: lambda y: a - b\n@C\ndef f():\n    return h(1, 2)(0)\n", "lambda a, b", "lambda b, a"), "f()", -1, 1),
    "lambda one deeper": edited("h = lambda x: x\n@C\ndef f():\n    return type(h(1)).__name__\n", "h = lambda x: lambda x: x\n@C\ndef f():\n    return type(h(1)).__name__\n", "f()", "int", "function"),
    "wrapper with other default": [S("import functools\ndef deco(g):\n    @functools.wraps(g)\n    def wrapper(x, k=5):\n        return g(x, k)\n    return wrapper\n@C\n@deco\ndef f(x, k=1):\n    return x + k\n", "[f(1), f(1, 1), f(1, 5)]", [6, 2, 6])],
    "wrapper fills default": [S("import functools\ndef deco(g):\n    @functools.wraps(g)\n    def wrapper(*a, **k):\n        k.setdefault('k', 9)\n        return g(*a, **k)\n    return wrapper\n@C\n@deco\ndef f(x, k=1):\n    return x + k\n", "[f(1), f(1, k=1)]", [10, 2])],
    "inner cached version": edited(*replaced("@cached(store, version=1)\ndef g(x):\n    return x\n@C\ndef f(x):\n    return g(x)\n", "version=1", "version=2"), "f(1)", 1, 1),
    "inner cached ignore": [S("import sys\nH = sys.stdout\n@cached(store, 'H')\ndef g(x):\n    H.flush()\n    return x\n@C\ndef f(x):\n    return g(x)\n", "f(1)", 1)],
    "total ordering": [S("import functools\n@functools.total_ordering\nclass A:\n    def __init__(self, k): self.k = k\n    def __lt__(self, o): return self.k < o.k\n    def __eq__(self, o): return self.k == o.k\n@C\ndef f():\n    return A(1) >= A(2)\n", "f()", False, o) for o in (MISS, HIT)],
    "functools.cache on method": edited(*replaced("import functools\nclass A:\n    @functools.cache\n    def g(self): return 1\n@C\ndef f():\n    return A().g()\n", "return 1", "return 2"), "f()", 1, 2),
    "match class": edited(*replaced("import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n@C\ndef f():\n    match P(3):\n        case P(x=x):\n            return x + 1\n", "x + 1", "x + 2"), "f()", 4, 5),
    "exception class": edited(*replaced("class E(Exception):\n    code = 1\ndef g():\n    raise E\n@C\ndef f():\n    try:\n        g()\n    except E as e:\n        return e.code\n", "code = 1", "code = 2"), "f()", 1, 2),
    "wrapper object": edited(*replaced("class W:\n    def __init__(self, g): self.__wrapped__ = g\n    def __call__(self, x): return self.__wrapped__(x) * 2\n@W\ndef g(x):\n    return x + 1\n" + F, "* 2", "* 3"), "f(1)", 4, 6),
    "type hint of helper by name": [S("def g(x):\n    return x\n@C\ndef f(name):\n    return globals()[name](1)\n", "f('g')", "globals", REFUSED)],
    "classmethod of subclass": [S("class A:\n    k = 1\n    @classmethod\n    @C\n    def run(cls): return cls.k\nclass B(A):\n    k = 2\n", "[A.run(), B.run()]", [1, 2])],
    "method of subclass": [S("class A:\n    def h(self): return 1\n    @C\n    def run(self): return self.h()\nclass B(A):\n    def h(self): return 2\n", "[A().run(), B().run()]", [1, 2])],
    "property on self": edited(*replaced("class A:\n    @property\n    def p(self): return 1\n    @C\n    def run(self): return self.p\n", "return 1", "return 2"), "A().run()", 1, 2),
    "frozenset constant": edited(*replaced("@C\ndef f(x):\n    return x in {'a', 'b', 'c'}\n", "'c'", "'d'"), "f('c')", True, False),
    "version of a library used through an argument": [S("@C\ndef f(g):\n    return g(1)\nimport fakelib", "f(fakelib.g)", 1, MISS, lib("1.0", 1)), S("@C\ndef f(g):\n    return g(1)\nimport fakelib", "f(fakelib.g)", 2, MISS, lib("2.0", 2))],
    "library version": [S(LIB, "f(1)", 1, MISS, lib("1.0", 1)), S(LIB, "f(1)", 2, MISS, lib("2.0", 2)), S(LIB, "f(1)", 1, HIT, lib("1.0", 1))],
    "module dunder": mods("import helpers\n@C\ndef f():\n    return getattr(helpers, '__version__')\n", "f()", 1, 2, {"helpers": "__version__ = 1"}, {"helpers": "__version__ = 2"}),
    "two modules of a name": [S("import sys, types\ndef mk(k):\n    s = {'__name__': 'zz'}\n    exec(f'K = {k}\\ndef g(): return K', s)\n    return s['g']\n@C\ndef f(a, b):\n    return (a(), b())\n", "[f(mk(1), mk(3)), f(mk(2), mk(3))]", [(1, 3), (2, 3)])],
    "operator helpers": edited(*replaced("import operator\ng = operator.itemgetter(0)\n@C\ndef f(x):\n    return g(x)\n", "(0)", "(1)"), "f([5, 6])", 5, 6),
    "nonlocal counter": [S("def make():\n    n = 0\n    def bump():\n        nonlocal n\n        n += 1\n        return n\n    return bump\nb = make()\n@C\ndef f():\n    return b()\n", "[f(), f(), f()]", [1, 2, 3])],
    "global via global statement": [S("K = 1\ndef bump():\n    global K\n    K += 1\n@C\ndef f():\n    return K\n", "[f(), bump(), f()]", [1, None, 2])],
    "nested class": edited(*replaced("K = 2\n@C\ndef f():\n    class A:\n        k = K\n        def g(self): return self.k\n    return A().g()\n", "K = 2", "K = 3"), "f()", 2, 3),
    "comprehension global": edited(*replaced("K = 2\n@C\ndef f():\n    return [K * i for i in range(3)], {K for _ in 'a'}, {i: K for i in 'a'}, list(K for _ in 'a')\n", "K = 2", "K = 3"), "f()", ([0, 2, 4], {2}, {"a": 2}, [2]), ([0, 3, 6], {3}, {"a": 3}, [3])),
    "mutable default helper": [S("def g(acc=[]):\n    acc.append(1)\n    return len(acc)\n@C\ndef f():\n    return g()\n", "[f(), f()]", [1, 2])],
    "loop closures": edited(*replaced("L = [(lambda k: lambda x: x * k)(k) for k in (1, 2)]\n@C\ndef f():\n    return L[1](3)\n", "(1, 2)", "(1, 3)"), "f()", 6, 9),
    "lambdas in list": edited(*replaced("L = [lambda x: x + 1, lambda x: x + 5]\n@C\ndef f():\n    return L[1](0)\n", "+ 5", "+ 6"), "f()", 5, 6),
    "generator helper": edited(*replaced("def g():\n    yield 1\n@C\ndef f():\n    return list(g())\n", "yield 1", "yield 2"), "f()", [1], [2]),
    "async helper": edited(*replaced("import asyncio\nasync def g():\n    return 1\n@C\nasync def f():\n    return await g()\n", "return 1", "return 2"), "asyncio.run(f())", 1, 2),
    "descriptor": edited(*replaced("class D:\n    def __get__(self, o, c): return 1\nclass A:\n    d = D()\n@C\ndef f():\n    return A().d\n", "return 1", "return 2"), "f()", 1, 2),
    "registry subclass": edited(*replaced("class A:\n    found = {}\n    def __init_subclass__(cls): A.found[cls.__name__] = cls\nclass B(A):\n    def g(self): return 1\n@C\ndef f():\n    return A.found['B']().g()\n", "return 1", "return 2"), "f()", 1, 2),
    "abc": edited(*replaced("import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def g(self): ...\n    @property\n    @abc.abstractmethod\n    def p(self): ...\nclass B(A):\n    def g(self): return 1\n    p = 3\n@C\ndef f():\n    return B().g()\n", "return 1", "return 2"), "f()", 1, 2),
    "metaclass": edited(*replaced("class M(type):\n    def __call__(cls, *a):\n        o = super().__call__(*a)\n        o.k = 1\n        return o\nclass A(metaclass=M): pass\n@C\ndef f():\n    return A().k\n", "o.k = 1", "o.k = 2"), "f()", 1, 2),
    "dataclass slots": [S("import dataclasses\n@dataclasses.dataclass(slots=True, frozen=True, order=True)\nclass A:\n    k: int = 1\n    l: list = dataclasses.field(default_factory=list, metadata={'unit': 'V'})\n    def g(self): return self.k + len(self.l)\n@C\ndef f(a):\n    return a.g()\n", "[f(A()), f(A(2)), f(A(1, [3]))]", [1, 2, 2], o) for o in (MISS, HIT)],
    "attrs class": [S("import attrs\n@attrs.define\nclass A:\n    k: int = 1\n    def g(self): return self.k\n@C\ndef f(a):\n    return a.g()\n", "[f(A()), f(A(2))]", [1, 2], o) for o in (MISS, HIT)],
    "typing things": [S("from typing import *\nT = TypeVar('T')\nclass G(Generic[T]):\n    def g(self) -> T: return 1\nclass P(Protocol):\n    def g(self) -> int: ...\nclass D(TypedDict):\n    a: int\nclass N(NamedTuple):\n    a: int = 1\n    def h(self): return self.a\nUserId = NewType('UserId', int)\n@C\ndef f(x: G[int], p: P, d: D, n: N):\n    return (G[int]().g(), isinstance(n, N), n.h(), UserId(4), D(a=1))\n", "f(G(), G(), D(a=1), N(2))", (1, True, 2, 4, {"a": 1}), o) for o in (MISS, HIT)],
    "annotated": same("from typing import Annotated\nclass U:\n    pass\nclass A:\n    x: Annotated[int, U()] = 1\n@C\ndef f():\n    return A().x\n", "from typing import Annotated\nclass U:\n    pass\nclass A:\n    x: Annotated[int, U()] = 1\nq = [0] * 10000\n@C\ndef f():\n    return A().x\n", "f()", 1),
    "docstring of cached property": same(*replaced("import functools\nclass A:\n    @functools.cached_property\n    def p(self):\n        'one'\n        return 1\n@C\ndef f():\n    return A().p\n", "'one'", "'two'"), "f()", 1),
    "cached property overwritten": [S("import functools\nclass A:\n    @functools.cached_property\n    def p(self):\n        return 1\n@C\ndef f(a):\n    return a.p\nb = A()\nb.p = 7\n", "[f(A()), f(b)]", [1, 7])],
    "library of an argument": [S("@C\ndef f(d):\n    return int(d.sum())\n", "f(pd.Series([1, 2]))", 3, MISS), S("from datastore_lab.cache import sources\nold = sources._version\n@C\ndef f(d):\n    return int(d.sum())\ndef g():\n    sources._version = lambda name: '99' if name == 'pandas' else old(name)\n    sources._distribution.cache_clear()\n    try:\n        return f(pd.Series([1, 2]))\n    finally:\n        sources._version = old\n        sources._distribution.cache_clear()\n", "g()", 3, MISS), S("@C\ndef f(d):\n    return int(d.sum())\n", "f(pd.Series([1, 2]))", 3, HIT)],
    "two modules of a name, both used": edited(*replaced("def mk(k):\n    s = {'__name__': 'zz'}\n    exec(f'K = {k}\\ndef g(): return K', s)\n    return s['g']\na, b = mk(1), mk(3)\n@C\ndef f():\n    return (a(), b())\n", "mk(1)", "mk(2)"), "f()", (1, 3), (2, 3)),
    "copied object's class": [S("import copy\nclass A:\n    __slots__ = ('k',)\n    def __init__(self): self.k = 1\n@C\ndef f(a):\n    return a.k\n", "f(A())", 1, MISS), S("import copy\nclass A:\n    __slots__ = ('k',)\n    def __init__(self): self.k = 1\n@C\ndef f(a):\n    return a.k\ncopy.copy(A())\n", "f(A())", 1, HIT)],
    "import in function, unrelated edit": [S("@C\ndef f():\n    import helpers as h\n    return h.g()\n", "f()", 1, MISS, {"helpers": "def g(): return 1\nK = 1\n"}), S("@C\ndef f():\n    import helpers as h\n    return h.g()\n", "f()", 1, HIT, {"helpers": "def g(): return 1\nK = 2\n"})],
    "import in function, used by an inner one": [S("@C\ndef f():\n    import helpers as h\n    return (lambda: h.g())()\n", "f()", 1, MISS, {"helpers": "def g(): return 1\nK = 1\n"}), S("@C\ndef f():\n    import helpers as h\n    return (lambda: h.g())()\n", "f()", 2, MISS, {"helpers": "def g(): return 2\nK = 2\n"})],
    "namespace package beside an installed one": [S("import nsp.mine\n@C\ndef f():\n    return nsp.mine.g()\n", "f()", 1, MISS, {"nsp/mine": "def g(): return 1", "site-packages/nsp/theirs": "K = 1"}), S("import nsp.mine\n@C\ndef f():\n    return nsp.mine.g()\n", "f()", 2, MISS, {"nsp/mine": "def g(): return 2", "site-packages/nsp/theirs": "K = 1"})],
    "forward reference": [S("import dataclasses\nfrom typing import Optional, get_type_hints\n@dataclasses.dataclass\nclass A:\n    next: Optional['A'] = None\nget_type_hints(A)\n@C\ndef f(a):\n    return a.next is None\n", "f(A(A()))", False, o) for o in (MISS, HIT)],
    "foreign heap type instance": [S("import fractions, datetime, uuid, ipaddress\n@C\ndef f(*a):\n    return len(a)\n", "f(fractions.Fraction(1, 3), uuid.UUID(int=1), datetime.timezone.utc, ipaddress.ip_network('1.0.0.0/8'), range(3), slice(1, 2), Exception('a'), np.polynomial.Polynomial([1, 2]))", 8, o) for o in (MISS, HIT)],
    "polynomial": [S("@C\ndef f(p):\n    return float(p(2))\n", "[f(np.polynomial.Polynomial([1, 2])), f(np.polynomial.Polynomial([1, 3])), f(np.poly1d([1, 2])), f(np.poly1d([1, 3]))]", [5.0, 7.0, 4.0, 5.0])],
    "ignored in a helper": [S("import sys\nlog = sys.stdout\ndef g(x):\n    log.flush()\n    return x\n@cached(store, 'log')\ndef f(x):\n    return g(x)\n", "f(1)", 1, o) for o in (MISS, HIT)],
    "default given anew as a keyword": [S("@C\ndef f(a, b=1, *, c=2):\n    return (a, b, c)\n", "[f(1), f(1, b=1), f(a=1, c=2), f(1, 1, c=3), f(b=2, a=1)]", [(1, 1, 2), (1, 1, 2), (1, 1, 2), (1, 1, 3), (1, 2, 2)])],
    "wrong arguments": [S("@C\ndef f(a, b=1):\n    return (a, b)\ndef t(*a, **k):\n    try:\n        return f(*a, **k)\n    except TypeError as e:\n        return 'TypeError'\n", "[t(), t(1, 2, 3), t(1, a=1), t(1, c=1), t(b=1), t(1, b=2)]", ["TypeError"] * 5 + [(1, 2)])],
    "library function replaced": [S("import statistics\n@C\ndef f():\n    return statistics.mean([1, 3])\nold = statistics.mean\ndef put(g):\n    statistics.mean = g\n", "[f(), put(lambda x: 'mine'), f(), put(lambda x: 'other'), f(), put(old), f()]", [2, None, "mine", None, "other", None, 2])],
    "library function replaced deeper": [S("@C\ndef f():\n    import xml.sax.saxutils\n    return xml.sax.saxutils.escape('<')\nimport xml.sax.saxutils as u\nold = u.escape\ndef put(g):\n    u.escape = g\n", "[f(), put(lambda x: 'mine'), f(), put(old), f()]", ["&lt;", None, "mine", None, "&lt;"])],
    "timezones": [S("import datetime, dateutil.tz\n@C\ndef f(d):\n    return d.utcoffset().seconds\n", "[f(datetime.datetime(2020, 7, 1, tzinfo=dateutil.tz.gettz(z))) for z in ('Europe/Paris', 'Europe/London')]", [7200, 3600])],
    "cached property filled by the function": [S("import functools\nclass A:\n    def __init__(self, k): self.k = k\n    @functools.cached_property\n    def p(self): return self.k * 10\n    @C\n    def run(self): return self.p + 1\na = A(1)\n", "[a.run(), a.run(), A.run._core.counts['misses']]", [11, 11, 1]), S("import functools\nclass A:\n    def __init__(self, k): self.k = k\n    @functools.cached_property\n    def p(self): return self.k * 10\n    @C\n    def run(self): return self.p + 1\na = A(1)\n", "[a.run(), a.run()]", [11, 11], HIT)],
    "cached property filled from an earlier state": [S("import functools\nclass A:\n    def __init__(self, k): self.k = k\n    @functools.cached_property\n    def p(self): return self.k * 10\n    @C\n    def run(self): return self.p + 1\na = A(1)\ndef change(): a.k = 2\n", "[a.run(), change(), a.run(), A(2).run(), A(1).run()]", [11, None, 11, 21, 11])],
    "cached properties filled one after the other": [S("import functools\nclass A:\n    @functools.cached_property\n    def p(self): return 1\n    @functools.cached_property\n    def q(self): return 2\n    @C\n    def one(self): return self.p\n    @C\n    def two(self): return self.p + self.q\na = A()\n", "[a.one(), a.two(), a.one(), a.two(), A.one._core.counts['misses'], A.two._core.counts['misses']]", [1, 3, 1, 3, 2, 1])],
    "subclass hook": edited(*replaced("import abc\nclass A(abc.ABC):\n    @classmethod\n    def __subclasshook__(cls, C):\n        return C is int\n@C\ndef f():\n    return isinstance(1, A)\n", "C is int", "C is str"), "f()", True, False),
    "protocol isinstance": edited(*replaced("from typing import *\n@runtime_checkable\nclass P(Protocol):\n    def run(self): ...\nclass A:\n    def run(self): pass\n@C\ndef f():\n    return isinstance(A(), P)\n", "    def run(self): pass\n@C", "    def ran(self): pass\n@C"), "f()", True, False),
    "named tuple default": edited(*replaced("import collections\nN = collections.namedtuple('N', 'a b', defaults=[1])\n@C\ndef f():\n    return N(0).b\n", "[1]", "[2]"), "f()", 1, 2),
    "annotations read": edited(*replaced("K = 1\ndef g(x: K): pass\n@C\ndef f():\n    return g.__annotations__['x']\n", "K = 1", "K = 2"), "f()", 1, 2),
    "class decorator edited": edited(*replaced("def deco(cls):\n    cls.k = 1\n    return cls\n@deco\nclass A: pass\n@C\ndef f():\n    return A.k\n", "cls.k = 1", "cls.k = 2"), "f()", 1, 2),
    "dunder all": module("__all__ = ['g']\ndef g(): return 1\ndef h(): return 2\n", "__all__ = ['h']\ndef g(): return 1\ndef h(): return 2\n", "import helpers\n@C\ndef f():\n    return helpers.__all__\n", "f()", ["g"], ["h"]),
    "f string with a global": edited(*replaced("K = 1\n@C\ndef f():\n    return f'{K=} {K:>{W}}'\nW = 3\n", "W = 3", "W = 4"), "f()", "K=1   1", "K=1    1"),
    "deleted and made again": [S("K = 1\n@C\ndef f():\n    return K\ndef drop():\n    global K\n    del K\ndef make():\n    global K\n    K = 2\n", "[f(), drop(), make(), f()]", [1, None, None, 2])],
    "method of a list in a global": [S("L = [1]\ng = L.__len__\n@C\ndef f():\n    return g()\n", "[f(), L.append(1), f()]", [1, None, 2])],
    "iterator in a global": [S("it = iter([1, 2, 3])\n@C\ndef f():\n    return next(it)\n", "[f(), f(), f()]", [1, 2, 3])],
    "type with dynamic attribute": [S("class A: pass\nA.k = 1\n@C\ndef f(c):\n    return c.k\ndef change(): A.k = 2\n", "[f(A), change(), f(A), f(A())]", [1, None, 2, 2])],
    "function attribute on an argument": [S("def g(): return g.k\ng.k = 1\n@C\ndef f(h):\n    return h()\ndef change(): g.k = 2\n", "[f(g), change(), f(g)]", [1, None, 2])],
    "function attribute read through an argument": [S("def g(): pass\ng.k = 1\n@C\ndef f(h):\n    return h.k\ndef change(): g.k = 2\n", "[f(g), change(), f(g)]", [1, None, 2])],
    "chain of partial of cached": edited(*replaced("import functools\n@C\ndef g(a, x): return a * x\nh = functools.partial(g, 2)\n@C\ndef f(x):\n    return h(x)\n", "a * x", "a + x"), "f(3)", 6, 5),
    "dataclass replaced field order": edited(*replaced("import dataclasses\n@dataclasses.dataclass\nclass P:\n    a: int = 1\n    b: int = 2\n@C\ndef f():\n    return dataclasses.astuple(P(5))\n", "    a: int = 1\n    b: int = 2\n", "    b: int = 2\n    a: int = 1\n"), "f()", (5, 2), (5, 1)),
}  # fmt: skip
