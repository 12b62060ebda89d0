"""The canonical names of array types."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_lab import dtypes
from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.testing import samples
from datastore_lab.testing.equality import assert_same_array


@pytest.mark.parametrize("dtype", samples.DTYPES, ids=str)
def test_a_name_gives_the_type_back(dtype):
    name = dtypes.name(dtype)
    assert json.loads(json.dumps(name)) == name
    found = dtypes.parse(name)
    assert found == dtype
    assert found.itemsize == dtype.itemsize
    if dtype.names:
        assert found.names == dtype.names
        assert [found.fields[field][1] for field in found.names] == [
            dtype.fields[field][1] for field in dtype.names
        ]


def test_names_are_distinct():
    names = {dtypes.name(dtype) for dtype in samples.DTYPES}
    assert len(names) == len(set(samples.DTYPES))


_SCALARS = st.sampled_from([dtype for dtype in samples.DTYPES if dtype.names is None and dtype.kind != "T"])
_FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5)


@st.composite
def structured(draw, depth=2):
    names = draw(st.lists(_FIELDS, min_size=1, max_size=4, unique=True))
    inner = _SCALARS if depth == 0 else st.one_of(_SCALARS, structured(depth - 1))
    fields = []
    for name in names:
        shape = draw(st.lists(st.integers(1, 3), max_size=2).map(tuple))
        fields.append((name, draw(inner), shape) if shape else (name, draw(inner)))
    return np.dtype(fields, align=draw(st.booleans()))


@settings(deadline=None)
@given(structured())
def test_any_structured_type_comes_back(dtype):
    found = dtypes.parse(dtypes.name(dtype))
    assert found == dtype
    assert found.itemsize == dtype.itemsize


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype(object),
        np.dtype([("a", object)]),
        np.dtype([("a", [("b", object)])]),
        np.dtype([("a", object, (2,))]),
        np.dtype([(("title", "a"), "f8")]),
        np.dtype([("outer", [(("title", "a"), "f8")])]),
        np.dtypes.StringDType(na_object=None),
        np.dtypes.StringDType(na_object=np.nan),
    ],
    ids=str,
)
def test_what_no_store_holds(dtype):
    with pytest.raises(NotStorable, match="can't be stored"):
        dtypes.check(dtype)
    with pytest.raises(NotStorable):
        dtypes.name(dtype)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "O",
        "|O",
        "nonsense",
        "[",
        "[1]",
        '[["a"]]',
        '[["a", "O"]]',
        "{}",
        '{"fields": []}',
        '[["a", "<f8", "x"]]',
        "[" * 9000,
    ],
    ids=lambda name: name[:20],
)
def test_what_is_no_name(name):
    with pytest.raises(Corrupt, match=r"array type|object type"):
        dtypes.parse(name)


def test_rows_that_fit_keep_their_values():
    for rows, dtype in [
        (np.array([1, -2]), ">i2"),
        (np.array([1, 2], ">u4"), "f4"),
        (np.array([0.5, np.nan, np.inf]), "f2"),
        (np.array(["2026", "NaT"], "M8[D]"), "M8[ns]"),
        (np.array([True, False]), "i1"),
        (np.array([b"ab"], "S9"), "S2"),
        (np.array(["µ"]), np.dtypes.StringDType()),
    ]:
        fitted = dtypes.fit(rows, np.dtype(dtype), "v")
        assert fitted.dtype == np.dtype(dtype)
        assert_same_array(fitted.astype(rows.dtype), rows)
        assert not np.shares_memory(fitted, rows)


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (np.array([1 << 20]), "i2"),
        (np.array([-1]), "u8"),
        (np.array([0.1]), "f4"),
        (np.array([1.5]), "i8"),
        (np.array([1e300]), "f4"),
        (np.array([1j]), "f8"),
        (np.array([np.nan]), "i8"),
        (np.array([b"abc"]), "S2"),
        (np.array(["text"]), "f8"),
        (np.array([(1, 2)], "i4,i4"), "f8"),
        (np.array([2**53 + 1]), "f8"),
        (np.array(["2026-01-01T00:00:01"], "M8[s]"), "M8[D]"),
    ],
    ids=str,
)
def test_rows_that_would_change_are_refused(rows, dtype):
    with pytest.raises(NotStorable, match="'v'"):
        dtypes.fit(rows, np.dtype(dtype), "v")


def test_fitting_copies_and_orders():
    rows = np.arange(6.0).reshape(2, 3).T
    fitted = dtypes.fit(rows, rows.dtype, "v")
    assert fitted.flags.c_contiguous
    assert not np.shares_memory(fitted, rows)
