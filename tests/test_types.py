"""Every type of array and of object on every engine, and the tables of docs/types.md that say so."""

import re
import sys
import types
from pathlib import Path

import carried
import numpy as np
import pytest
from engines import FILES, WHOLE, Case
from golden.content import OBJECTS

from datastore_lab import dtypes, objects
from datastore_lab.errors import NotStorable
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.store.mapping import Store
from datastore_lab.testing import samples
from datastore_lab.testing.equality import assert_same, assert_same_array

DOCS = Path(__file__).parent.parent / "docs" / "types.md"
MEMORY = Case("memory", "")
WRITTEN = [MEMORY, *WHOLE]
COLUMNS = [MEMORY, *FILES]

DTYPES = list({carried.label(dtype): dtype for dtype in samples.DTYPES}.values())


def arrays(dtype):
    """Make arrays of many shapes, and views that are not contiguous; of a type like another only one."""
    made = {"v": samples.array(dtype, (4,), 9)}
    if is_like_another(dtype):
        return made
    whole = samples.array(dtype, (4, 6), 7)
    return made | {
        "no axes": samples.array(dtype, (), 1),
        "empty": samples.array(dtype, (2, 0, 3), 2),
        "transposed": whole.T,
        "reversed": whole[::-1, 1::-3],
        "read-only": np.broadcast_to(whole[0], (2, 6)),
    }


def is_like_another(dtype):
    """Say whether a type is a time that differs from another one only in its unit."""
    return dtype.kind in "mM" and np.datetime_data(dtype)[0] not in {"D", "ns", "generic"}


def opened(case, path, mode):
    return case.open("", mode) if case is MEMORY else case.open(path, mode, durability="process")


def carry_records(case, folder):
    """Write and read a record of each type; gives how each is carried, by label."""
    path = folder / case.name
    engine, found = opened(case, path, "w"), {}
    with engine.transaction():
        for number, dtype in enumerate(DTYPES):
            try:
                engine.write((str(number),), Record("array", arrays(dtype), {}, {}))
            except NotStorable:
                found[carried.label(dtype)] = "refused"
    if case is not MEMORY:
        engine.close()
        engine = opened(case, path, "r")
    for number, dtype in enumerate(DTYPES):
        if carried.label(dtype) not in found:
            for name, array in arrays(dtype).items():
                back = engine.read((str(number),), name)
                assert_same_array(back, np.asarray(array), f"{case.engine}, {dtype}, {name}")
                assert engine.stat((str(number),)).arrays[name].dtype == dtypes.name(dtype)
    engine.close()
    for number, dtype in enumerate(DTYPES):
        found.setdefault(carried.label(dtype), carried.how(case.engine, path, str(number), "v"))
    return found


def carry_streams(case, folder):
    """Append rows of each type; gives how each is carried, by label."""
    found = {}
    for number, dtype in enumerate(DTYPES):
        rows = {"v": samples.array(dtype, (7,), number), "w": samples.array(dtype, (7, 2, 3), number)}
        for names, note in [(("v", "w"), ""), (("v",), "; only single values")]:
            path = folder / f"{number}-{len(names)}" / case.name
            path.parent.mkdir()
            try:
                append_rows(case, path, {name: rows[name] for name in names})
            except NotStorable:
                found[carried.label(dtype)] = "refused"
                continue
            found[carried.label(dtype)] = carried.how(case.engine, path, "s", "v") + note
            break
    return found


def append_rows(case, path, rows):
    infos = {
        name: ArrayInfo(dtypes.name(part.dtype), (0, *part.shape[1:]), dims_of(name, part), 0, None)
        for name, part in rows.items()
    }
    engine = case.open(path, "w", durability="process")
    try:
        stream = engine.append(("s",), Stat("stream", infos, {}))
        stream.extend({name: part[:3] for name, part in rows.items()})
        stream.flush()
        stream.extend({name: part[3:] for name, part in rows.items()})
        stream.close({})
    finally:
        engine.close()
    engine = case.open(path, "r")
    for name, part in rows.items():
        assert_same_array(engine.read(("s",), name), part, f"{case.engine}, {part.dtype}")
    engine.close()


def dims_of(name, rows):
    return ("time", *(f"{name}_{axis}" for axis in range(1, rows.ndim)))


CARRIED = {}
"""What was found, by engine: the tests of the engines fill it, the test of the tables reads it."""


@pytest.mark.parametrize("case", COLUMNS, ids=lambda case: case.engine)
def test_every_type_of_array_comes_back_bit_by_bit(case, tmp_path):
    carry = carry_records if case in WRITTEN else carry_streams
    CARRIED[case.engine] = carry(case, tmp_path)
    if case in WRITTEN:
        assert "refused" not in CARRIED[case.engine].values()


EDGES = {
    "no bytes per item": np.zeros((2, 3), "V0"),
    "no fields": np.zeros(3, np.dtype([])),
    "a field without bytes": np.zeros(2, [("a", "V0"), ("b", "i4")]),
    "lone surrogates": np.array(["a\ud800", "b"]),
    "a lone surrogate without axes": np.array("\udcff"),
    "a lone surrogate in a name": np.zeros(2, [("\ud800", "i4")]),
    "text in sub-arrays": np.array([(["ab", "c"],)], [("u", "U3", (2,))]),
    "big-endian fields": np.zeros(2, [("x", ">f8"), ("y", ">U2"), ("z", ">M8[D]")]),
    "a long name": np.zeros(1, [("n" * 300, "f8")]),
    "32 axes": np.zeros((1,) * 31 + (2,), "S3"),
    "text like escapes": np.array(["\0", "%00", "%25"], np.dtypes.StringDType()),
    "beyond a double": np.array([np.longdouble("1e4000"), -np.longdouble(0), np.longdouble("nan")]),
    "a signalling NaN": np.array([0x7F800001, 0xFFC00001], "u4").view("f4"),
    "a signalling NaN, big-endian": np.array([0x7F800001, 0xFFC00001], "u4").view(">f4"),
    "a signalling NaN of two bytes": np.array([0x7C01, 0xFE01], "u2").view(">f2"),
    "a complex with signalling NaNs": np.array([[0x7FF0000000000001, 1 << 63]], "u8").view("c16"),
}


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.engine)
def test_odd_arrays_come_back(case, tmp_path):
    store = Store(opened(case, tmp_path / case.name, "w"))
    for name, array in EDGES.items():
        store[name] = array
        assert_same(store[name], array, f"{case.engine}, {name}")
    before = store.revision()
    with pytest.raises(NotStorable, match="33 axes"):
        store["new"] = np.zeros((1,) * 33)
    assert store.revision() == before
    assert store.verify() == []
    store.close()


KEPT = {}
"""How each object is kept, by engine, family and name."""


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.engine)
def test_every_object_comes_back_equal_and_of_the_same_type(case, tmp_path):
    store = Store(opened(case, tmp_path / case.name, "w"))
    items = {(family, name): obj for family, found in OBJECTS.items() for name, obj in found.items()}
    with store.transaction():
        for key, obj in items.items():
            store[key] = obj
    if case is not MEMORY:
        store.close()
        store = Store(opened(case, tmp_path / case.name, "r"))
    for key, obj in items.items():
        assert_same(store[key], obj, f"{case.engine}, {key}")
    assert store.verify() == []
    store.close()
    KEPT[case.engine] = set(items)


def dtypes_table():
    names = [case.engine for case in COLUMNS]
    lines = [f"| type | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for dtype in DTYPES:
        cells = [CARRIED[name][carried.label(dtype)] for name in names]
        lines.append(f"| {carried.label(dtype)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def objects_table():
    names = [case.engine for case in WRITTEN]
    lines = [f"| object | codec | arrays | {' | '.join(names)} |", f"|---|---|---|{'---|' * len(names)}"]
    for family, found in OBJECTS.items():
        for name, obj in found.items():
            record = objects.encode(obj)
            cells = ["exact" if (family, name) in KEPT[engine] else "" for engine in names]
            lines.append(f"| {name} | `{record.kind}` | {_list(record.arrays)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _list(names):
    shown = [f"`{name}`" for name in list(names)[:4]]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize != 16, reason="the table is of x86-64 with Linux")
def test_the_tables_in_the_docs_are_what_the_tests_found(pytestconfig, request, tmp_path):
    if {*CARRIED} != {case.engine for case in COLUMNS} or {*KEPT} != {case.engine for case in WRITTEN}:
        pytest.skip("some engines were not tested in this run")
    text = DOCS.read_text()
    written = _replaced(_replaced(text, "arrays", dtypes_table()), "objects", objects_table())
    if pytestconfig.getoption("--types-table"):
        DOCS.write_text(written)
    assert DOCS.read_text() == written, "write it anew: pytest tests/test_types.py --types-table"


def _replaced(text, mark, table):
    begin, end = f"<!-- table of {mark} -->\n", f"\n<!-- end of {mark} -->"
    before, _, rest = text.partition(begin)
    assert end in rest, f"docs/types.md has lost the marks of the table of {mark}"
    return f"{before}{begin}{table}{end}{rest.partition(end)[2]}"


def test_the_examples_of_the_docs_run(monkeypatch, capsys):
    module = types.ModuleType("lab_docs")
    monkeypatch.setitem(sys.modules, "lab_docs", module)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/types.md", "exec"), module.__dict__)
    objects.forget_type(module.Motor)
    assert capsys.readouterr().out == "2.0 counts 1.5\n"
    codec = module.SpectrumCodec(objects.encode, objects.decode)
    assert codec.decode(codec.encode(module.Spectrum(np.arange(3), "V"))).unit == "V"
