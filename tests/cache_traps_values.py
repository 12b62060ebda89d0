# ruff: noqa: E501 (programs on one line)
"""Situations in which values look alike, or hide what they hold."""

from __future__ import annotations

from cache_traps import HIT, MISS, REFUSED, Step, edited, replaced, same


def S(
    program: str, call: str, value: object, expected: str = MISS, modules: dict[str, str] | None = None
) -> Step:
    return Step(program, call, value, expected, modules)


TABLE = "class T(pd.DataFrame):\n    _metadata = ['unit']\n    @property\n    def _constructor(self): return T\n    def two(self): return 2\nt = T({'a': [1, 2]})\nt.unit = 'V'\n@C\ndef f(t):\n    return (t.unit, int(t.a.sum()), t.two())\n"

TRAPS: dict[str, list[Step]] = {
    "subclass of Random": [S("import random\nclass R(random.Random): pass\n@C\ndef f(r):\n    return r.random()\n", "f(R(1)) == f(R(2))", False)],
    "subclass of array": [S("import array\nclass R(array.array): pass\n@C\ndef f(r):\n    return r[0]\n", "[f(R('i', [1])), f(R('i', [2]))]", [1, 2])],
    "subclass of partial": [S("import functools\nclass R(functools.partial): pass\n@C\ndef f(r):\n    return r()\n", "[f(R(int, 1)), f(R(int, 2))]", [1, 2])],
    "subclass of deque": [S("import collections\nclass R(collections.deque): pass\n@C\ndef f(r):\n    return r[0]\n", "[f(R([1])), f(R([2]))]", [1, 2])],
    "subclass of defaultdict": [S("import collections\nclass R(collections.defaultdict): pass\n@C\ndef f(r):\n    return r[0]\n", "[f(R(int, {0:1})), f(R(int, {0: 2})), f(R(lambda: 5, {}))]", [1, 2, 5])],
    "subclass of datetime": [S("import datetime\nclass R(datetime.datetime): pass\n@C\ndef f(r):\n    return r.year\n", "[f(R(2020,1,1)), f(R(2021,1,1))]", [2020, 2021])],
    "subclass of generator": [S("class R(np.random.Generator):\n    def __init__(self, s, k):\n        super().__init__(np.random.PCG64(s))\n        self.k = k\n@C\ndef f(r):\n    return r.k\n", "[f(R(1, 1)), f(R(1, 2))]", [1, 2])],
    "subclass of OrderedDict": [S("import collections\nclass R(collections.OrderedDict): pass\n@C\ndef f(r):\n    return list(r)\n", "[f(R(a=1, b=2)), f(R(b=2, a=1))]", [["a", "b"], ["b", "a"]])],
    "subclass of Counter": [S("import collections\nclass R(collections.Counter): pass\n@C\ndef f(r):\n    return r['a']\n", "[f(R('a')), f(R('aa'))]", [1, 2])],
    "subclass of BytesIO": [S("import io\nclass R(io.BytesIO): pass\n@C\ndef f(r):\n    return r.getvalue()\n", "[f(R(b'a')), f(R(b'b'))]", [b"a", b"b"])],
    "subclass of Path": [S("import pathlib\nclass R(type(pathlib.Path())): pass\n@C\ndef f(r):\n    return r.name\nv = R('a/b')\nhash(v), str(v)\n", "[f(R('a/b')), f(R('a/c'))]", ["b", "c"]), S("import pathlib\nclass R(type(pathlib.Path())): pass\n@C\ndef f(r):\n    return r.name\nv = R('a/b')\nhash(v), str(v)\n", "f(v)", "b", HIT)],
    "subclass of str enum": [S("import enum\nclass D(str, enum.Enum):\n    A = 'a'\n    B = 'b'\nclass Fl(enum.Flag):\n    X = 1\n    Y = 2\n@C\ndef f(r):\n    return r.value\n", "[f(D.A), f(D.B), f(Fl.X | Fl.Y), f(Fl.X)]", ["a", "b", 3, 1])],
    "datetime fold": [S("import datetime, zoneinfo\nd = datetime.datetime(2020, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo('Europe/Paris'))\n@C\ndef f(d):\n    return d.utcoffset().seconds\n", "[f(d), f(d.replace(fold=1))]", [7200, 3600])],
    "weakref": [S("import weakref\nclass A: pass\na = A()\na.k = 1\nr = weakref.ref(a)\n@C\ndef f():\n    return r().k\ndef change(): a.k = 2\n", "[f(), change(), f()]", "weak reference", REFUSED)],
    "frompyfunc": [S("u = np.frompyfunc(lambda x: x, 1, 1)\n@C\ndef f(x):\n    return u(x)\n", "f(1)", "ufunc", REFUSED)],
    "generator arg": [S("@C\ndef f(x):\n    return sum(x)\n", "f(i for i in [1])", "only once", REFUSED)],
    "open file": [S("import sys\n@C\ndef f(x):\n    return 1\n", "f(sys.stdout)", "'x'", REFUSED)],
    "dict views": [S("@C\ndef f(x):\n    return sorted(x)\n", "[f({1: 2}.keys()), f({1: 2}.values()), f({1: 2}.items()), f({1: 2})]", [[1], [2], [(1, 2)], [1]])],
    "random spawn": [S("r = np.random.default_rng(1)\n@C\ndef f(r):\n    return int(r.spawn(1)[0].integers(10**9))\ns = np.random.default_rng(1); s.spawn(1)\n", "f(r) == f(s)", False)],
    "offset holidays": [S("A = pd.offsets.CustomBusinessDay(holidays=['2020-01-02'])\nB = pd.offsets.CustomBusinessDay()\n@C\ndef f(o):\n    return str(pd.Timestamp('2020-01-01') + o)\n", "[f(A), f(B)]", ["2020-01-03 00:00:00", "2020-01-02 00:00:00"])],
    "categorical dtype": [S("A = pd.CategoricalDtype(range(1000))\nB = pd.CategoricalDtype([*range(500), 5000, *range(501, 1000)])\n@C\ndef f(o):\n    return int(o.categories.max())\n", "[f(A), f(B)]", [999, 5000])],
    "frame flags": [S("@C\ndef f(o):\n    return o.flags.allows_duplicate_labels\n", "[f(pd.DataFrame({'a': [1]})), f(pd.DataFrame({'a': [1]}).set_flags(allows_duplicate_labels=False))]", [True, False])],
    "xarray indexes": [S("import xarray as xr\nd = xr.DataArray([1., 2.], dims='t', coords={'t': [0, 1]})\n@C\ndef f(o):\n    return len(o.indexes)\n", "[f(d), f(d.drop_indexes('t'))]", [1, 0])],
    "xarray encoding": same("import xarray as xr\n@C\ndef f(o):\n    return 1\nd = xr.DataArray([1., 2.], dims='t')\n", "import xarray as xr\n@C\ndef f(o):\n    return 1\nd = xr.DataArray([1., 2.], dims='t')\nd.encoding['x'] = 1\n", "f(d)", 1),
    "structured scalar and void": [S("@C\ndef f(x):\n    return str(x)\nd = np.dtype([('a', 'i4'), ('b', 'f8')])\n", "[f(np.array((1, 2.), d)[()]), f(np.array((1, 3.), d)[()])]", ["(1, 2.0)", "(1, 3.0)"])],
    "stringdtype na": [S("@C\ndef f(x):\n    return str(x.dtype)\n", "[f(np.array(['a'], np.dtypes.StringDType(na_object=None))), f(np.array(['a'], np.dtypes.StringDType()))]", ["StringDType(na_object=None)", "StringDType()"])],
    "big endian": [S("@C\ndef f(x):\n    return (x.dtype.byteorder, x.tolist())\n", "[f(np.array(1, '>i4')), f(np.array(1, '<i4')), f(np.array([1], '>i4')), f(np.array(1, '>i4').newbyteorder('<') if hasattr(np.ndarray, 'newbyteorder') else np.array(16777216, '<i4'))]", [(">", 1), ("=", 1), (">", [1]), ("=", 16777216)])],
    "NaT": [S("@C\ndef f(x):\n    return str(x)\n", "[f(np.datetime64('NaT')), f(np.datetime64('NaT', 'D')), f(np.timedelta64('NaT')), f(np.datetime64(0, 's'))]", ["NaT", "NaT", "NaT", "1970-01-01T00:00:00"])],
    "memory kinds": [S("@C\ndef f(x):\n    return type(x).__name__\n", "[f(b'ab'), f(bytearray(b'ab')), f(memoryview(b'ab')), f('ab')]", ["bytes", "bytearray", "memoryview", "str"])],
    "numbers": [S("from decimal import Decimal\nfrom fractions import Fraction\nfrom pathlib import Path, PurePosixPath\n@C\ndef f(x):\n    return repr(x)\n", "[f(Decimal('1.0')), f(Decimal('1')), f(Fraction(1, 2)), f(Path('a')), f(PurePosixPath('a')), f('a')]", ["Decimal('1.0')", "Decimal('1')", "Fraction(1, 2)", "PosixPath('a')", "PurePosixPath('a')", "'a'"], o) for o in (MISS, HIT)],
    "method state inherited slots": [S("class A:\n    __slots__ = ('_A__p', 'q')\nclass B(A):\n    __slots__ = ('__r',)\n    def __init__(self, q, r):\n        self.q = q\n        self.__r = r\n    @C\n    def run(self): return (self.q, self.__r)\n", "[B(1, 1).run(), B(2, 1).run(), B(1, 2).run(), B(1, 1).run()]", [(1, 1), (2, 1), (1, 2), (1, 1)])],
    "bound chain library": edited(*replaced("import string\nT = string.Template('a$x')\n@C\ndef f():\n    return T.substitute(x=1)\n", "'a$x'", "'b$x'"), "f()", "a1", "b1"),
    "logger": [S("import logging\nlog = logging.getLogger('x')\n@C\ndef f():\n    log.debug('a')\n    return 1\n", "f()", 1, o) for o in (MISS, HIT)],
    "lock in object": [S("import threading\nclass A:\n    def __init__(self): self.lock = threading.Lock()\n@C\ndef f(a):\n    with a.lock: return 1\n", "f(A())", 1, o) for o in (MISS, HIT)],
    "subclass hidden heap type": [S("import threading\nclass A(threading.local):\n    pass\n@C\ndef f(a):\n    return a.k\na = A(); a.k = 1\nb = A(); b.k = 2\n", "[f(a), f(b)]", "in each thread or context", REFUSED)],
    "context variable": [S("import contextvars\nv = contextvars.ContextVar('v', default=1)\n@C\ndef f():\n    return v.get()\n", "f()", "in each thread or context", REFUSED)],
    "subclass of DataFrame": edited(*replaced(TABLE, "'V'", "'mV'"), "f(t)", ("V", 3, 2), ("mV", 3, 2)),
    "subclass of DataFrame with other values": edited(*replaced(TABLE, "[1, 2]", "[1, 3]"), "f(t)", ("V", 3, 2), ("V", 4, 2)),
    "subclass of DataFrame with other code": edited(*replaced(TABLE, "return 2", "return 5"), "f(t)", ("V", 3, 2), ("V", 3, 5)),
    "subclass of DataFrame as a global": edited(*replaced(TABLE + "def g():\n    return f.__wrapped__(t)\ng = C(g)\n", "'V'", "'mV'"), "g()", ("V", 3, 2), ("mV", 3, 2)),
    "subclass of DataFrame and DataFrame": [S("class T(pd.DataFrame): pass\n@C\ndef f(t):\n    return type(t).__name__\n", "[f(T({'a': [1]})), f(pd.DataFrame({'a': [1]}))]", ["T", "DataFrame"])],
    "subclass of Series": edited(*replaced("class T(pd.Series):\n    _metadata = ['unit']\nt = T([1, 2])\nt.unit = 'V'\n@C\ndef f(t):\n    return (t.unit, int(t.sum()))\n", "'V'", "'A'"), "f(t)", ("V", 3), ("A", 3)),
    "subclass of Dataset": edited(*replaced("import xarray as xr\nclass T(xr.Dataset):\n    __slots__ = ('unit',)\nt = T({'a': ('x', [1, 2])})\nobject.__setattr__(t, 'unit', 'V')\n@C\ndef f(t):\n    return (t.unit, int(t.a.sum()))\n", "'V'", "'A'"), "f(t)", ("V", 3), ("A", 3)),
    "subclass of Dataset with other values": edited(*replaced("import xarray as xr\nclass T(xr.Dataset):\n    __slots__ = ()\nt = T({'a': ('x', [1, 2])})\n@C\ndef f(t):\n    return int(t.a.sum())\n", "2]", "3]"), "f(t)", 3, 4),
    "user subclass of enum with state": [S("import enum\nclass E(enum.Enum):\n    A = 1\nE.A.extra = 1\n@C\ndef f(e):\n    return e.extra\ndef change(): E.A.extra = 2\n", "[f(E.A), change(), f(E.A)]", [1, None, 2])],
    "exception with notes and cause": [S("@C\ndef f(e):\n    return (e.args, getattr(e, '__notes__', None), repr(e.__cause__))\ndef mk(n, c):\n    e = ValueError(1)\n    if n: e.add_note(n)\n    e.__cause__ = c\n    return e\n", "[f(mk('', None)), f(mk('a', None)), f(mk('', KeyError(2)))]", [((1,), None, "None"), ((1,), ["a"], "None"), ((1,), None, "KeyError(2)")])],
    "bytes io position": [S("import io\n@C\ndef f(b):\n    return b.read()\nb = io.BytesIO(b'abc')\n", "[f(b), b.seek(0), b.read(1), f(b)]", [b"abc", 0, b"a", b"bc"])],
}  # fmt: skip
