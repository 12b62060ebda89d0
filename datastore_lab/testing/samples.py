"""Hard cases: names, metadata, array types and shapes that a store must hold as they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "25s")

_NUMBERS = ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")

NATIVE_DTYPES: tuple[np.dtype[Any], ...] = tuple(map(np.dtype, ("?", "i1", "u1", *_NUMBERS)))
"""Booleans and numbers in this machine's byte order: what every medium has."""

DTYPES: tuple[np.dtype[Any], ...] = (
    *NATIVE_DTYPES,
    *(np.dtype(f">{code}") for code in _NUMBERS),
    np.dtype(np.longdouble),
    np.dtype(np.clongdouble),
    *(np.dtype(f"M8[{unit}]") for unit in _UNITS),
    *(np.dtype(f"m8[{unit}]") for unit in _UNITS),
    *map(np.dtype, ("M8", "m8", ">M8[ns]", ">m8[s]", "S1", "S7", "U1", "U5", ">U3", "V1", "V6")),
    np.dtypes.StringDType(),
    np.dtype([("x", "f8"), ("y", "i2")]),
    np.dtype([("x", ">f4"), ("t", "M8[us]"), ("name", "S4"), ("label", "U3")]),
    np.dtype([("point", [("x", "f4"), ("y", "f4")]), ("ok", "?")]),
    np.dtype([("matrix", "f8", (2, 3)), ("raw", "V2")]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["b", "a"], "formats": ["i2", "u1"], "offsets": [4, 1], "itemsize": 9}),
    np.dtype([("é/ .", "i4"), ("z", "c16")]),
)
"""Every type of array that numpy has, but Python objects, in both byte orders."""

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (5,), (2, 0, 3), (3, 4), (2, 1, 3, 2))
"""No axes, empty ones, one and several axes."""

PARTS: tuple[str, ...] = (
    ".",
    "..",
    "a/b",
    "/",
    "//",
    "\0",
    "nul\0inside",
    "%2F",
    "%",
    "%~",
    "zarr.json",
    ".zarray",
    ".zgroup",
    "__x",
    "__xarray_dataarray_variable__",
    "lab_kind",
    "lab_meta",
    "c",
    "0",
    "Case",
    "case",
    "CASE",
    "trailing.",
    "trailing ",
    " leading",
    "con",
    "NUL.txt",
    "com1",
    "back\\slash",
    'a:b*c?d"e<f>g|h',
    "line\nbreak\ttab\x7f",
    "\N{SNOWMAN}\N{MUSICAL SYMBOL G CLEF}",
    "\u0639\u0631\u0628\u064a\u202e!",
    "é",  # composed
    "e\u0301",  # and decomposed: two names
    "ß",
    "n" * 300,
    "n" * 299 + "m",
    "é" * 150,
    "/" * 100,
    "~",
    "-",
    "'quote\"",
    "<script>",
)
"""Parts of keys, and names of arrays, that break media which store names as they are."""

METAS: tuple[dict[str, Any], ...] = (
    {},
    {"none": None, "true": True, "false": False, "int": 3, "zero": 0, "float": 1.0, "text": "µV"},
    {"minus zero": -0.0, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "tiny": 5e-324, "third": 1 / 3},
    {"int64": 2**63 - 1, "-int64": -(2**63), "uint64": 2**64 - 1, "beyond": 2**64, "wide": -(7**100)},
    {"": ""},
    {"empty": [], "nothing": {}, "blank": ""},
    {
        "list": [1, 2, 3],
        "floats": [1.0, 2.5],
        "bools": [True, False],
        "texts": ["a", "", "é"],
        "mix": [1, 1.0, True],
    },
    {
        "one": [1],
        "float one": [1.0],
        "nested": [[1], [2, [3, {"a": None}]]],
        "map": {"b": {"c": [math.nan]}, "a": 1},
    },
    {"ints and nan": [1, math.nan], "wide list": [2**70, 1], "nones": [None, None]},
    {
        "nul": "a\0b",
        "end": "a\0",
        "newline": "\n",
        "emoji": "\N{SNOWMAN}",
        "rtl": "\u202eabc",
        "json": '{"$float": 1}',
    },
    {"long": "x" * 100_000, "many": list(range(20_000))},
    {
        "units": {"a": "V"},
        "CLASS": "DIMENSION_SCALE",
        "NAME": "x",
        "_FillValue": 0,
        "scale_factor": 2.0,
        "dtype": "f8",
    },
    {
        "a/b": 1,
        "..": 2,
        "nul\0": 3,
        "n" * 300: 4,
        "zarr_format": 2,
        "attributes": {},
        "_ARRAY_DIMENSIONS": ["q"],
    },
    {"$tuple": [1], "tagged": {"$float": "other", "x": 1}, "order": {"z": 1, "a": 2, "m": 3}},
    {f"name {i}": i for i in range(300)},
)
"""JSON metadata that must come back equal, with int and float, True and 1 kept apart."""


def array(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    """Make an array of any type with arbitrary bits: NaNs with payloads, NaT, padding and all.

    Parameters
    ----------
    dtype : dtype or what numpy takes for one
    shape : tuple of int
    seed : int, optional
        Equal seeds give equal arrays.
    """
    dtype, random = np.dtype(dtype), np.random.default_rng(seed)
    if dtype.kind == "T":
        texts = ["", "a", "µV", "a\0b", "x" * 40, "\N{SNOWMAN}" * 300]
        return np.array(
            [texts[i] for i in random.integers(len(texts), size=math.prod(shape))], dtype
        ).reshape(shape)
    if dtype.names is not None:
        raw = random.bytes(math.prod(shape) * dtype.itemsize)  # the gaps between fields are arbitrary too
        whole = np.frombuffer(raw, dtype, math.prod(shape)).reshape(shape).copy()
        for number, field in enumerate(dtype.names):
            inner, part = dtype.fields[field][0], whole[field]
            part[...] = array(inner.base, part.shape, seed + number)
        return whole
    if dtype.kind == "U":
        return _texts(dtype, shape, random)
    if dtype.kind == "b":
        return random.integers(2, size=shape).astype(bool)
    if (
        dtype.kind in "fc"
        and dtype.itemsize not in {2, 4, 8}
        and dtype not in {np.dtype("c16"), np.dtype(">c16")}
    ):
        return (random.standard_normal(shape) / 3).astype(
            dtype
        )  # an 80-bit float has bits that are no number
    raw = random.bytes(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(raw, dtype, math.prod(shape)).reshape(shape).copy()


def _texts(dtype: np.dtype[Any], shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    letters = np.array(list("\0aZµ中\N{SNOWMAN}\N{MUSICAL SYMBOL G CLEF}"))
    points = letters[random.integers(len(letters), size=(*shape, dtype.itemsize // 4))].view(np.uint32)
    native = points.astype(np.uint32).reshape(-1).view(dtype.newbyteorder("="))
    return native.reshape(shape).astype(dtype)
