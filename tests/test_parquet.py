"""What is particular to the Parquet folder; what all engines share is in the conformance suite."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_lab import open_store
from datastore_lab.engines.parquet import ParquetFolderEngine, columns, doc, quick, read, text
from datastore_lab.engines.parquet.checked import Part
from datastore_lab.errors import (
    Corrupt,
    EngineError,
    Locked,
    NotStorable,
)
from datastore_lab.folders import files
from datastore_lab.records import Appends, ArrayInfo, Engine, Record, Stat
from datastore_lab.testing import samples, strategies
from datastore_lab.testing.equality import assert_same_array, assert_same_json

RNG = np.random.default_rng(0)


def item(values, **meta):
    return Record("array", {"data": np.asarray(values)}, meta, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.parquets"


@pytest.fixture
def engine(path):
    engine = ParquetFolderEngine(path, "w")
    yield engine
    engine.close()


def reopen(engine, path, mode="r"):
    engine.close()
    return ParquetFolderEngine(path, mode)


def names_in(folder):
    return sorted(place.name for place in Path(folder).iterdir())


def stream(engine, key=("s",), **dtypes):
    infos = {name: ArrayInfo(dtype, (0,), ("time",), 0, None) for name, dtype in dtypes.items()}
    return engine.append(key, Stat("stream", infos, {}))


# -- what others see -------------------------------------------------------------------------------


def test_it_is_an_engine_that_appends(engine, path):
    assert isinstance(engine, Engine)
    assert isinstance(engine, Appends)
    assert engine.url == str(path)


def test_a_person_finds_one_parquet_and_one_yaml_per_record(engine, path):
    engine.write(("run", "camera"), item(np.arange(3), unit="V", answer="no", day="2026-01-01"))
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert found == ["lab.yaml", "run/camera/lab.yaml", "run/camera/record.parquet", "run/lab.yaml"]
    seen = yaml.safe_load((path / "run" / "camera" / "lab.yaml").read_text())
    assert seen["attributes"] == {"unit": "V", "answer": "no", "day": "2026-01-01"}
    assert seen["lab_kind"] == "array"
    array = {"dtype": "<i8", "shape": [3], "dims": ["data_0"], "stored": "values", "table": "record"}
    assert seen["arrays"] == {"data": array}
    engine.close()
    assert names_in(path.parent) == ["s.parquets"]


def test_pandas_reads_columns_of_one_length_as_a_table(engine, path):
    when = np.array(["2026-01-01", "NaT", "2026-01-03"], "M8[us]")
    arrays = {
        "time": when,
        "x": np.array([1.5, -0.0, np.nan]),
        "half": np.array([1, 2, 3], "f2"),
        "n": np.array([1, 2, 3], ">u2"),
        "ok": np.array([True, False, True]),
        "label": np.array(["a", "µV", "a\0b"]),
        "word": np.array(["b", "", "c"], np.dtypes.StringDType()),
        "late": np.array([1, "NaT", 3], "m8[s]"),
        "channels": np.arange(6.0).reshape(3, 2),
        "a.b": np.arange(3),
    }
    engine.write(("t",), Record("array", arrays, {}, {}))
    frame = pd.read_parquet(path / "t" / "record.parquet")
    assert list(frame.columns) == list(arrays)
    assert [str(frame[name].dtype) for name in ("x", "half", "n", "ok")] == [
        "float64",
        "float16",
        "uint16",
        "bool",
    ]
    assert frame["x"].to_numpy().tobytes() == arrays["x"].tobytes()
    assert frame["time"].isna().tolist() == [False, True, False]
    assert frame["time"][2] == pd.Timestamp("2026-01-03")
    assert frame["late"][2] == pd.Timedelta(3, "s")
    assert frame["label"].tolist() == arrays["label"].tolist()
    assert frame["word"].tolist() == arrays["word"].tolist()
    assert np.array_equal(np.stack(frame["channels"]), arrays["channels"])
    for name, array in arrays.items():
        assert_same_array(engine.read(("t",), name), array)


def test_arrays_of_other_lengths_have_files_of_their_own(engine, path):
    arrays = {
        "x": np.arange(3.0),
        "v": np.zeros((5, 3)),
        "t": np.arange(5),
        "one": np.array(7),
        "X": np.arange(2),
    }
    engine.write(("k",), Record("xarray", arrays, {}, {"v": ("t", "x"), "x": ("x",), "t": ("t",)}))
    assert pq.read_schema(path / "k" / "record.parquet").names == ["v", "t"]
    found = names_in(path / "k")
    assert found == [
        "lab.yaml",
        "record.2~.parquet",
        "record.one.parquet",
        "record.parquet",
        "record.x.parquet",
    ]
    for name, array in arrays.items():
        assert_same_array(engine.read(("k",), name), array)


def test_images_are_bytes_that_numpy_reads(engine, path):
    frames = RNG.integers(0, 255, (20, 48, 64), "u1")
    engine.write(("k",), item(frames))
    column = pq.read_table(path / "k" / "record.parquet")["data"]
    assert column.type == pa.binary(48 * 64)
    assert np.array_equal(np.frombuffer(column[3].as_py(), "u1").reshape(48, 64), frames[3])


def test_complex_numbers_are_pairs(engine, path):
    engine.write(("k",), item(np.array([1 + 2j, 3 - 1j])))
    assert pq.read_table(path / "k" / "record.parquet")["data"].to_pylist() == [[1, 2], [3, -1]]


def test_what_shrinks_is_compressed(engine, path):
    engine.write(
        ("k",), Record("array", {"noise": RNG.standard_normal(50_000), "zeros": np.zeros(50_000)}, {}, {})
    )
    group = pq.read_metadata(path / "k" / "record.parquet").row_group(0)
    assert [group.column(at).compression for at in range(2)] == ["UNCOMPRESSED", "ZSTD"]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
def test_small_integers_take_no_more_than_their_size(engine, path, dtype):
    info = np.iinfo(dtype)
    values = RNG.integers(info.min, info.max, 200_000, dtype, endpoint=True)
    engine.write(("k",), Record("array", {"v": values, "w": values.reshape(-1, 2)[:100_000]}, {}, {}))
    assert sum(file.stat().st_size for file in (path / "k").iterdir()) < 2.6 * values.nbytes
    assert_same_array(engine.read(("k",), "v"), values)
    assert_same_array(engine.read(("k",), "w"), values.reshape(-1, 2))


def test_open_store_knows_it_by_suffix_and_content(tmp_path):
    with open_store(tmp_path / "lab.parquets") as store:
        store["frame"] = pd.DataFrame(
            {"a": [1, 2]}, index=pd.date_range("2026", periods=2, tz="Europe/Berlin")
        )
    (tmp_path / "lab.parquets").rename(tmp_path / "other")
    with open_store(tmp_path / "other", "r") as store:
        assert store["frame"].index.tz.key == "Europe/Berlin"


# -- the text --------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(meta=strategies.metas())
def test_yaml_comes_back_equal_here_and_elsewhere(meta):
    raw = text.dump(meta)
    assert_same_json(text.load(raw, "x"), meta)
    assert_same_json(yaml.safe_load(raw), meta)  # a reader of YAML 1.1


@settings(max_examples=200, deadline=None)
@given(word=st.text())
def test_any_text_comes_back_wherever_it_stands(word):
    given = {word: [word, {word: word}], "deep": [[word], [[word]]]}
    assert text.load(text.dump(given), "x") == given
    assert yaml.safe_load(text.dump(given)) == given


PLAIN = """lab_kind: array
arrays:
  data:
    dtype: "<f8"
    shape: [128, 2]
    attributes: {}
tables:
  record:
    files:
      - name: "a \\"b\\" c"
        rows: -1.5
      - name: null
        sums: [true, "x", 2.5, v-1]
"""


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.just(PLAIN), strategies.metas().map(lambda meta: text.dump(meta).decode())),
    st.floats(0, 1),
    st.text(" -:\"\\[]{},#?&*!|>%@~.'ab1\t\n\r\x85\u2028", max_size=4),
    st.integers(0, 3),
)
def test_the_quick_reader_of_yaml_reads_what_the_other_reads_or_nothing(raw, share, signs, gone):
    at = int(share * len(raw))
    for changed in (raw, raw[:at] + signs + raw[at + gone :]):
        found = quick.load(changed, text._plain)
        if found is not None:
            assert_same_json(found, text._build(yaml.parse(changed, Loader=text._LOADER)))


@settings(max_examples=200, deadline=None)
@given(
    strategies.metas(),
    st.floats(0, 1),
    st.text('ab "\n-=:09\\', max_size=3),
    st.integers(0, 3),
)
def test_a_description_is_read_alike_whether_its_tables_are_read_apart_or_not(meta, share, signs, gone):
    column = columns.choose(np.dtype("f8"), (3,), as_text=False)
    parts = tuple(Part(f"record.{number}.parquet", rows, 100, bytes(8)) for number, rows in enumerate((1, 2)))
    whole = doc.Doc("array", None, meta, {"x": doc.Array(column, ("t",), "r")}, {"r": doc.Table(parts, 5)})
    body = doc.body_of(doc.to_bytes(whole)).decode()
    at = int(share * len(body))
    for changed in (body, body[:at] + signs + body[at + gone :]):
        apart = doc._parse_alike(changed.encode())
        if apart is not None:
            assert repr(apart) == repr(doc._parse(text.load(changed.encode(), "x")))


def test_the_quick_reader_reads_the_descriptions_of_most_items(engine, path):
    engine.write(("a", "b"), Record("table", {"x": np.arange(3), "y": np.zeros((3, 2))}, {"unit": "V"}, {}))
    assert quick.load(PLAIN, text._plain) == yaml.safe_load(PLAIN)
    body = doc.body_of((path / "a" / "b" / "lab.yaml").read_bytes()).decode()
    assert quick.load(body, text._plain) == yaml.safe_load(body)
    assert (
        doc._parse_alike(body.encode())
        == engine._tree.node(("a", "b")).doc
        == doc._parse(yaml.safe_load(body))
    )


@pytest.mark.parametrize(
    "raw",
    [
        "a: &x [1]\nb: [*x, *x]",
        "a: !!python/object:os.system x",
        "a: !tag 1",
        "a: 1\na: 2",
        "a: " + "[" * 500 + "]" * 500,
        "- 1",
        "a: 1\n---\nb: 2",
        "{a: 1",
        "? [1]\n: 2",
        "a: \x01",
        "",
    ],
    ids=range(11),
)
def test_yaml_that_is_more_than_values_is_refused(raw):
    with pytest.raises(Corrupt, match=r"x\.yaml"):
        text.load(raw.encode(), "x.yaml")


def test_text_that_would_take_too_much_memory_is_refused(monkeypatch):
    monkeypatch.setattr(text, "LONGEST", 1000)
    with pytest.raises(Corrupt, match="1,500 bytes"):
        text.load(b"a: " + b"x" * 1497, "x.yaml")
    with pytest.raises(NotStorable, match="store what is large"):
        text.dump({"a": "x" * 1000})


# -- parts of arrays -------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [100, 400_000], ids=["one row group", "several"])
def test_a_whole_record_is_what_its_arrays_are(engine, monkeypatch, length):
    arrays = {
        "numbers": RNG.standard_normal(length),
        "pairs": RNG.standard_normal((length, 2)) + 1j,
        "words": np.full(length, "ab", "U5"),
        "fields": np.zeros(length, [("a", "i1"), ("b", ">f8")]),
    }
    engine.write(
        ("a",), Record("table", arrays, {}, {name: ("row", name)[: a.ndim] for name, a in arrays.items()})
    )
    opened = []
    open_part = read.open_part
    monkeypatch.setattr(read, "open_part", lambda *given: opened.append(given) or open_part(*given))
    found = engine.read_whole(("a",))
    assert len(opened) == (1 if length == 100 else len(arrays))
    for name, array in arrays.items():
        assert_same_array(found.arrays[name], array)
        assert_same_array(engine.read(("a",), name), array)
        assert found.arrays[name].flags.writeable


@pytest.mark.parametrize("shape", [(700_000,), (30_000, 24), (40, 50, 400), (3, 250_000)])
def test_large_arrays_are_cut_and_any_part_of_them_is_read(engine, shape):
    values = RNG.integers(-9, 9, shape, "i2").astype("f8")
    engine.write(("a",), item(values))
    for _ in range(25):
        cut = []
        for length in shape:
            start, stop = (int(n) for n in RNG.integers(-length, length, 2))
            step = int(RNG.choice([1, 1, 2, 7, -1, -3]))
            cut.append(start if RNG.random() < 0.2 else slice(start, stop, step))
        cut = tuple(cut[: RNG.integers(1, len(shape) + 1)])
        found = engine.read(("a",), "data", cut)
        assert_same_array(found, np.array(values[cut], order="C"))


@pytest.mark.parametrize("dtype", ["f8", "S3", "T", "?", ">c8", "M8[ns]", "f8,i2"])
def test_rows_that_are_too_long_are_cut(engine, monkeypatch, dtype):
    monkeypatch.setattr(columns, "LONGEST_ROW", 100)
    dtype = np.dtypes.StringDType() if dtype == "T" else np.dtype(dtype)
    for shape in [(3, 40), (2, 3, 40), (5, 4, 3), (1, 1000), (2, 3, 4, 50)]:
        values = samples.array(dtype, shape, 1)
        engine.write(("a",), item(values))
        for cut in ((), (1 % shape[0],), (slice(None, None, -1), slice(1, None)), (slice(1, None, 2), -1)):
            assert_same_array(engine.read(("a",), "data", cut), values[(*cut, ...)])


def test_a_part_is_read_from_its_row_groups_alone(engine, path):
    engine.write(("a",), item(RNG.standard_normal(1_000_000)))
    seen = []
    original = os.read
    engine = reopen(engine, path)
    try:
        os.read = lambda handle, size: seen.append(size) or original(handle, size)
        engine.read(("a",), "data", (slice(600_000, 600_010),))
    finally:
        os.read = original
    assert sum(seen) < 4 << 20
    assert engine.stat(("a",)).arrays["data"].chunks == (131_072,)


def test_an_update_leaves_the_payload_alone(engine, path):
    engine.write(("a",), item(np.arange(1000)))
    before = (path / "a" / "record.parquet").stat()
    engine.update(("a",), {"note": "x"})
    after = (path / "a" / "record.parquet").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


# -- streams ---------------------------------------------------------------------------------------


def test_flushes_make_parts_that_are_joined(engine, path):
    grows = stream(engine, t="<i8", v="T")
    for turn in range(40):
        rows = np.arange(5) + 5 * turn
        grows.extend({"t": rows, "v": rows.astype("T")})
        grows.flush()
        found = pd.concat(pd.read_parquet(file) for file in sorted((path / "s").glob("record.*.parquet")))
        assert found["t"].tolist() == list(range(5 * turn + 5))  # a pattern of names gives them in order
        assert len(names_in(path / "s")) <= 18
    grows.close({"end": True})
    assert names_in(path / "s") == ["lab.yaml", "record.parquet"]
    assert pd.read_parquet(path / "s" / "record.parquet")["v"].tolist() == [str(n) for n in range(200)]
    assert engine.read(("s",), "t", (slice(3, 200, 50),)).tolist() == [3, 53, 103, 153]
    assert not list(engine.verify())


def test_what_a_dead_writer_left_is_joined_by_compact(engine, path):
    grows = stream(engine, t="<i8")
    for turn in range(3):
        grows.extend({"t": np.arange(2) + 2 * turn})
        grows.flush()
    assert engine.compact() == 0  # not while it grows
    assert len(names_in(path / "s")) == 4
    engine = reopen(engine, path, "a")
    engine.compact()
    assert names_in(path / "s") == ["lab.yaml", "record.parquet"]
    assert engine.read(("s",), "t").tolist() == list(range(6))
    engine.close()


def test_a_damaged_part_does_not_stop_a_recording(engine, path):
    grows = stream(engine, t="<i8")
    for turn in range(40):
        grows.extend({"t": np.arange(2) + 2 * turn})
        grows.flush()
        if turn == 3:
            (path / "s" / "record.000002.parquet").write_bytes(b"?")
    grows.close({})
    assert engine.stat(("s",)).arrays["t"].shape == (80,)
    assert engine.read(("s",), "t", (slice(6, None),)).tolist() == list(range(6, 80))
    with pytest.raises(Corrupt, match="000002"):
        engine.read(("s",), "t")
    assert engine.compact() == 0


def test_a_failed_flush_keeps_its_rows(engine):
    grows = stream(engine, t="<i8")
    grows.extend({"t": np.arange(3)})

    def refuse(operation, where, detail):
        if operation == "rename":
            raise OSError(5, "Input/output error", where)

    with files.observe(refuse), pytest.raises(EngineError, match="the disk refused"):
        grows.flush()
    assert engine.stat(("s",)).arrays["t"].shape == (0,)
    grows.extend({"t": np.arange(3, 5)})
    grows.close({})
    assert engine.read(("s",), "t").tolist() == list(range(5))


# -- several processes -----------------------------------------------------------------------------


def test_a_second_writer_is_told_who_writes_and_readers_are_let_in(engine, path):
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        ParquetFolderEngine(path, "a")
    reader = ParquetFolderEngine(path, "r")
    engine.write(("a",), item([1]))
    before = reader.revision()
    assert reader.read(("a",), "data").tolist() == [1]
    engine.update(("a",), {"x": 1})
    assert reader.revision() > before
    assert reader.stat(("a",)).meta == {"x": 1}
    engine.close()
    ParquetFolderEngine(path, "a").close()
    reader.close()


READER = """
import sys
from datastore_lab.engines.parquet import ParquetFolderEngine
reader = ParquetFolderEngine(sys.argv[1], "r")
seen = set()
print("ready", flush=True)
while 79 not in seen:
    values = reader.read(("a",), "data")
    assert len(set(values.tolist())) == 1 and len(values) == 2000, values
    length = reader.stat(("s",)).arrays["t"].shape[0]
    rows = reader.read(("s",), "t")
    assert len(rows) >= length and rows.tolist() == list(range(len(rows)))
    assert set(reader.keys()) >= {("s",)}
    seen.add(int(values[0]))
print(len(seen), flush=True)
"""


def test_a_reader_sees_whole_items_while_another_process_writes(engine, path):
    engine.write(("a",), item(np.full(2000, -1)))
    grows = stream(engine, t="<i8")
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        for turn in range(80):
            engine.write(("a",), item(np.full(2000, turn)))
            grows.extend({"t": np.arange(3) + 3 * turn})
            grows.flush()
        found, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert int(found) > 1


def test_a_full_disk_is_a_typed_error_and_changes_nothing(engine, path):
    engine.write(("kept",), item(np.arange(5), a=1))
    left = [None]

    def refuse(operation, where, detail):
        if left[0] is not None and operation in {"write", "append"}:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device", where)

    noise = RNG.standard_normal(400_000)
    with files.observe(refuse):
        for allowed in range(4):
            left[0] = allowed
            with pytest.raises(EngineError, match="No space left"):
                engine.write(("kept",), item(noise))
            assert engine.read(("kept",), "data").tolist() == [0, 1, 2, 3, 4]
    engine.write(("kept",), item(noise))
    assert engine.read(("kept",), "data").tobytes() == noise.tobytes()
