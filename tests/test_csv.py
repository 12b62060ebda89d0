"""Streams in CSV files: exact cells, sidecars, torn ends, and tables of other programs."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_lab import dtypes, open_store
from datastore_lab.engines.csv import CSVEngine
from datastore_lab.errors import Corrupt, EngineError, Foreign, NotStorable
from datastore_lab.records import ArrayInfo, Stat
from datastore_lab.streams.text import cells, lines, sidecar
from datastore_lab.testing.equality import assert_same_array


def spec_of(arrays, meta=None):
    infos = {}
    for name, array in arrays.items():
        dims = ("time", *(f"{name}_{axis}" for axis in range(1, array.ndim)))
        infos[name] = ArrayInfo(dtypes.name(array.dtype), (0, *array.shape[1:]), dims, 0, None)
    return Stat("stream", infos, meta or {})


def store(path, arrays, meta=None):
    engine = CSVEngine(path, durability="process")
    appender = engine.append(("s",), spec_of(arrays, meta))
    appender.extend(arrays)
    appender.flush()
    return engine, appender


def test_the_table_is_plain_and_the_sidecar_readable(tmp_path):
    arrays = {
        "time": np.array(["2026-01-01T00:00:00.000000001", "NaT"], "M8[ns]"),
        "id": np.array(["007", 'a "b", c\nd'], np.dtypes.StringDType()),
        "v": np.array([[0.1, -0.0], [np.nan, np.inf]]),
        "z": np.array([1 + 2j, -0.5j]),
        "raw": np.array([b"ab", b"\0"]),
        "on": np.array([True, False]),
    }
    engine, appender = store(tmp_path / "run.csv", arrays, {"units": {"v": "V"}})
    appender.close({})
    engine.close()
    with (tmp_path / "run.s.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [
        ["time", "id", "v[0]", "v[1]", "z", "raw", "on"],
        ["2026-01-01T00:00:00.000000001", "007", "0.1", "-0", "1+2j", "6162", "true"],
        ["NaT", 'a "b", c\nd', "nan", "inf", "-0-0.5j", "0000", "false"],
    ]
    frame = pd.read_csv(tmp_path / "run.s.csv", dtype={"id": str}, parse_dates=["time"])
    assert frame["id"].tolist() == ["007", 'a "b", c\nd']
    assert np.array_equal(frame[["v[0]", "v[1]"]].to_numpy(), arrays["v"], equal_nan=True)
    about = json.loads((tmp_path / "run.s.csv.json").read_text())
    assert (about["rows"], about["closed"], about["lab_meta"].pop("lab_birth") > "") == (2, True, True)
    assert about["lab_meta"] == {"units": {"v": "V"}}
    assert about["lab_arrays"]["z"] == {"dtype": "<c16", "form": "complex", "shape": [2], "dims": ["time"]}
    with open_store(tmp_path / "run.csv", "r") as opened:
        for name, array in arrays.items():
            assert_same_array(opened.record("s").arrays[name], array)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**64 - 1), st.sampled_from(["f8", "f4", "f2", "c16", "c8", "M8[ns]", "M8[D]", "m8[s]"])
)
def test_every_bit_pattern_comes_back(bits, code):
    dtype = np.dtype(code)
    one = np.array([bits, ~bits & (2**64 - 1)], "u8").view(np.uint8)[: max(8, dtype.itemsize)].view(dtype)[:1]
    assert_same_array(cells.read(cells.write(one), dtype), one)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_every_text_comes_back(texts):
    column = np.array(texts, np.dtypes.StringDType())
    raw = b"".join(text.encode() + b"\n" for text in cells.write(column).to_pylist())
    assert lines.parse(raw, 1, [0], "x.csv")[0].to_pylist() == texts


def test_a_part_of_a_long_table_is_parsed_without_the_rest(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).random((60_000, 4))
    engine, appender = store(tmp_path / "run.csv", {"x": rows})
    appender.close({})
    file = engine._file(("s",))
    seen = []
    plain = type(file)._checked
    monkeypatch.setattr(type(file), "_checked", lambda self, a, b: seen.append(b - a) or plain(self, a, b))
    assert np.array_equal(engine.read(("s",), "x", (slice(30_000, 30_010), 2)), rows[30_000:30_010, 2])
    assert sum(seen) < (tmp_path / "run.s.csv").stat().st_size / 2
    assert np.array_equal(engine.read(("s",), "x", (slice(None, None, -777),)), rows[::-777])
    engine.close()


def test_lines_that_were_never_acknowledged_do_not_count(tmp_path):
    engine, _appender = store(tmp_path / "run.csv", {"x": np.arange(5)})
    left = tmp_path / "left"
    shutil.copytree(tmp_path, left, ignore=lambda folder, names: {"left"} & set(names))
    whole = (left / "run.s.csv").read_bytes()
    (left / "run.s.csv").write_bytes(whole + b"5\n6\n12")
    reader = CSVEngine(left / "run.csv", "r")
    assert reader.read(("s",), "x").tolist() == [0, 1, 2, 3, 4]
    assert list(reader.verify()) == []
    CSVEngine(left / "run.csv", "a").close()
    assert (left / "run.s.csv").read_bytes() == whole
    (left / "run.s.csv").write_bytes(whole[:-3])
    with pytest.raises(Corrupt):
        CSVEngine(left / "run.csv", "r").read(("s",), "x")
    engine.close()


def test_a_table_that_was_edited_is_taken_as_it_is_only_when_that_is_asked_for(tmp_path):
    engine, appender = store(tmp_path / "run.csv", {"x": np.arange(5), "t": np.array(list("abcde"))})
    appender.close({})
    engine.close()
    path = tmp_path / "run.s.csv"
    path.write_text(path.read_text().replace('4,"e"', '44,"e"\n5,"f"'))
    engine = CSVEngine(tmp_path / "run.csv")
    with pytest.raises(Corrupt):
        engine.read(("s",), "x")
    assert not any(done.mended for done in engine.repair())
    assert all(done.mended for done in engine.repair(accept=True))
    assert engine.read(("s",), "x").tolist() == [0, 1, 2, 3, 44, 5]
    assert list(engine.verify()) == []
    path.write_text(path.read_text().replace("44", "many"))
    assert not any(done.mended for done in engine.repair(accept=True))
    engine.close()


@pytest.mark.parametrize("at", [b"\n1", b"\n9", b",9.5"], ids=["first cell", "last line", "last cell"])
def test_a_quote_that_is_never_closed_loses_no_line_to_a_repair(tmp_path, at):
    arrays = {"t": np.arange(10), "x": np.arange(10) + 0.5}
    engine, appender = store(tmp_path / "run.csv", arrays)
    appender.close({})
    engine.close()
    table = tmp_path / "run.s.csv"
    damaged = table.read_bytes().replace(at, at[:-1] + b'"')
    table.write_bytes(damaged)
    with contextlib.closing(CSVEngine(tmp_path / "run.csv", "r+")) as engine:
        assert [step.mended for step in engine.repair(accept=True)] == [False, False]
        assert table.read_bytes() == damaged
        assert engine.stat(("s",)).arrays["x"].shape == (10,)
        with pytest.raises(Corrupt, match="not as they were written"):
            engine.read(("s",), "x")


def test_what_a_table_can_not_hold(tmp_path):
    engine = CSVEngine(tmp_path / "run.csv")
    for bad in (np.zeros((1, 20_000)), np.zeros((2, 0)), np.zeros(3, "V0")):
        with pytest.raises(NotStorable):
            engine.append(("s",), spec_of({"x": bad}))
    assert list(tmp_path.iterdir()) == []
    appender = engine.append(("s",), spec_of({"x": np.array(["abc"])}))
    with pytest.raises(NotStorable, match="surrogate"):
        appender.extend({"x": np.array(["\ud800"])})
    engine.close()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_of_other_programs(tmp_path, delimiter, bom, end):
    rows = [
        ["n", "x", "id", "on", "day", "when", "gap", "big", "note"],
        [
            "1",
            "0.5",
            "007",
            "true",
            "2026-01-01",
            "2026-01-01T10:00:00Z",
            "1",
            "12345678901234567890",
            '"a;b,c"',
        ],
        ["-2", "1e3", "010", "False", "2026-01-02", "2026-01-01 10:00:00.5", "", "1", '"say ""hi"""'],
    ]
    text = "".join(delimiter.join(row) + end for row in rows) + end
    (tmp_path / "other.csv").write_bytes((bom + text).encode())
    with open_store(tmp_path / "other.csv", "r") as opened:
        read = lambda name: opened.engine.read((), name)
        assert opened.stat().kind == "arrays"
        assert read("n").tolist() == [1, -2]
        assert read("x").tolist() == [0.5, 1000]
        assert read("id").tolist() == ["007", "010"]
        assert read("on").tolist() == [True, False]
        assert read("day").dtype == np.dtype("M8[D]")
        assert read("when").astype("i8").tolist()[1] - read("when").astype("i8").tolist()[0] == 500_000_000
        assert np.array_equal(read("gap"), [1, np.nan], equal_nan=True)
        assert read("big").tolist() == ["12345678901234567890", "1"]
        assert read("note").tolist() == ["a;b,c", 'say "hi"']


def test_a_decimal_comma_is_not_guessed(tmp_path):
    (tmp_path / "german.csv").write_text("x;y\n1,5;2\n2,5;3\n")
    engine = CSVEngine(tmp_path / "german.csv", "r")
    assert engine.read((), "x").tolist() == ["1,5", "2,5"]
    assert engine.read((), "y").tolist() == [2, 3]


def test_a_table_without_names(tmp_path):
    (tmp_path / "bare.csv").write_text("1,2\n3,4\n")
    engine = CSVEngine(tmp_path / "bare.csv", "r")
    assert engine.read((), "column_1").tolist() == [2, 4]


@pytest.mark.parametrize("content", [b"", bytes(100), b"a,b\n1,2,3\n", "ä,b\n1,2\n".encode("latin-1") * 9])
def test_what_is_no_table_is_said_to_be_none(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(Foreign, match=r"a\.csv"):
        CSVEngine(tmp_path / "a.csv", "r")


def test_a_link_is_not_followed(tmp_path):
    engine, appender = store(tmp_path / "run.csv", {"x": np.arange(5)})
    appender.close({})
    engine.close()
    (tmp_path / "run.s.csv").rename(tmp_path / "elsewhere")
    (tmp_path / "run.s.csv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError):
        CSVEngine(tmp_path / "run.csv", "r").read(("s",), "x")


def test_pandas_is_not_dragged_in(tmp_path):
    engine, appender = store(tmp_path / "run.csv", {"x": np.arange(5.0), "t": np.arange(5).astype("M8[s]")})
    appender.close({})
    engine.close()
    (tmp_path / "other.csv").write_text("a,b\n1,x\n")
    program = f"""
import sys
from datastore_lab.engines.csv import CSVEngine
for path, key in [({str(tmp_path / "run.csv")!r}, ("s",)), ({str(tmp_path / "other.csv")!r}, ())]:
    engine = CSVEngine(path)
    for name in engine.stat(key).arrays:
        engine.read(key, name)
assert not {{"pandas", "h5py", "zarr"}} & sys.modules.keys(), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"sep=;\r\na;b\r\n1;2\r\n", {"a": [1], "b": [2]}),
        (b"a\n1e400\n2\n", {"a": ["1e400", "2"]}),
        (b"a\n-inf\n2.5\n", {"a": [-np.inf, 2.5]}),
        (b"id,n\n007,1\n010,2\n", {"id": ["007", "010"], "n": [1, 2]}),
        (b'"","x"\n"1",NA\n"2",3\n', {"column_0": [1, 2], "x": ["NA", "3"]}),
        ("\ufeffa;b\r\n1,5;x\r\n".encode(), {"a": ["1,5"], "b": ["x"]}),
    ],
)
def test_tables_of_spreadsheets_are_never_guessed_wrong(tmp_path, raw, expected):
    (tmp_path / "t.csv").write_bytes(raw)
    engine = CSVEngine(tmp_path / "t.csv", "r")
    assert {name: engine.read((), name).tolist() for name in engine.stat(()).arrays} == expected


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("ä,b\n1,2\n".encode("latin1"), "encoding.*save it as UTF-8"),
        (b"PK\3\4" + bytes(40), "Excel"),
        (b"a,b\n1,2\n3\n4,5\n", "1 cells where 2 should be: '3"),
        (b"a,b\n1,2,3\n", "3 cells where 2 should be: '1,2,3'"),
        (b"a,b\r1,2\r3,4\r", "Macintosh"),
        (b'a,b\n1,"2\n3,4\n', "quotes"),
        (b'a,b\n1,2\n3"3,4\n5,6\n', "quotes"),
    ],
)
def test_what_is_no_table_is_named_with_the_way_out(tmp_path, raw, words):
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(Foreign, match=rf"t\.csv.*{words}"):
        CSVEngine(tmp_path / "t.csv", "r")


def test_a_power_cut_between_the_two_names_of_a_whole_stream_loses_nothing(tmp_path, monkeypatch):
    """The table has its place, and what describes it does not yet."""
    path, spec = tmp_path / "run.csv", Stat("stream", {"x": ArrayInfo("<i8", (0,), ("t",), 0, None)}, {})
    engine = CSVEngine(path)
    stream = engine.append_whole(("s",), spec)
    stream.extend({"x": np.arange(5)})
    monkeypatch.setattr(sidecar, "settle", lambda *_args, **_options: None)
    stream.close({})
    monkeypatch.undo()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.s.csv", "run.s.csv-mend.json"]
    reader = CSVEngine(path, "r")
    assert reader.read(("s",), "x").tolist() == list(range(5))
    (tmp_path / "run.s.csv-lock").touch()  # as its killed writer leaves it
    CSVEngine(path).close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.s.csv", "run.s.csv.json"]
    assert CSVEngine(path, "r").read(("s",), "x").tolist() == list(range(5))
    assert list(CSVEngine(path, "r").verify()) == []
