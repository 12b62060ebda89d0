"""What is not as it was written in a Parquet folder, and what strangers have put there."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datastore_lab.engines.parquet import ParquetFolderEngine, doc, read, text
from datastore_lab.errors import (
    AlreadyExists,
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    NotFound,
)
from datastore_lab.records import Record

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


def reseal(file, change):
    """Change a description as a stranger may who knows how it is sealed."""
    body = doc.body_of(file.read_bytes())
    file.write_bytes(doc.seal(text.dump(change(text.load(body, str(file))))))


def test_every_flipped_bit_of_a_small_record_is_found_and_put_right(engine, path):
    engine.write(("a",), item(np.arange(4), unit="V"))
    engine.write(("b",), item(np.arange(2)))
    for file in (path / "a" / "lab.yaml", path / "a" / "record.parquet"):
        raw = file.read_bytes()
        for at in range(0, 8 * len(raw), 7 if file.suffix == ".yaml" else 41):
            damaged = bytearray(raw)
            damaged[at // 8] ^= 1 << at % 8
            file.write_bytes(damaged)
            with pytest.raises(Corrupt, match="'a'"):
                engine.read(("a",), "data")
            assert engine.read(("b",), "data").tolist() == [0, 1]
            if at % 287 == 0:
                assert [problem.key for problem in engine.verify()] == [("a",)]
                assert list(engine.keys()) == [("a",), ("b",)]
                assert [step.mended for step in engine.repair()] == [True]
                assert file.read_bytes() == raw
        file.write_bytes(raw)
    assert not list(engine.verify())
    assert not list(engine.repair())


def test_what_was_edited_on_purpose_is_taken_when_asked_for(engine, path):
    engine.write(("a",), item(np.arange(4), unit="V"))
    file = path / "a" / "lab.yaml"
    file.write_text("# edited by hand\n" + file.read_text().replace("unit: V", "unit: mV   # a comment"))
    with pytest.raises(Corrupt, match="accept=True"):
        engine.stat(("a",))
    assert [step.mended for step in engine.repair()] == [False]
    assert [step.mended for step in engine.repair(("a",), accept=True)] == [True]
    assert engine.stat(("a",)).meta == {"unit": "mV"}
    assert engine.read(("a",), "data").tolist() == [0, 1, 2, 3]
    table = pq.read_table(path / "a" / "record.parquet")
    pq.write_table(table.set_column(0, table.schema.field(0), [[9, 8, 7, 6]]), path / "a" / "record.parquet")
    assert [step.mended for step in engine.repair()] == [False]
    assert [step.mended for step in engine.repair(accept=True)] == [True]
    assert engine.read(("a",), "data").tolist() == [9, 8, 7, 6]
    pq.write_table(pa.table({"data": ["not", "what", "it", "was"]}), path / "a" / "record.parquet")
    assert [step.mended for step in engine.repair(accept=True)] == [False]
    with pytest.raises(Corrupt):
        engine.read(("a",), "data")


@pytest.mark.parametrize("lost", ["lab.yaml", "record.parquet"])
def test_a_lost_file_hides_nothing(engine, path, lost):
    for name in "abc":
        engine.write((name,), item([1, 2]))
    (path / "b" / lost).unlink()
    assert list(engine.keys()) == [("a",), ("b",), ("c",)]
    assert list(engine.children()) == ["a", "b", "c"]
    with pytest.raises(Corrupt, match="missing"):
        engine.read(("b",), "data")
    assert [problem.key for problem in engine.verify()] == [("b",)]
    assert [step.mended for step in engine.repair(accept=True)] == [False]
    engine.delete(("b",))
    assert not list(engine.verify())


def test_a_damaged_root_leaves_its_items_readable(engine, path):
    engine.write(("a",), item([1, 2]))
    raw = (path / "lab.yaml").read_bytes()
    engine = reopen(engine, path)
    for at in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[at // 8] ^= 1 << at % 8
        (path / "lab.yaml").write_bytes(damaged)
        other = ParquetFolderEngine(path, "r")
        assert other.read(("a",), "data").tolist() == [1, 2]
        with pytest.raises(Corrupt):
            other.stat(())
        other.close()


def test_damage_in_a_large_array_costs_its_block_alone(engine, path):
    values = RNG.standard_normal(1_000_000)
    engine.write(("a",), item(values))
    file = path / "a" / "record.parquet"
    with file.open("r+b") as handle:
        handle.seek(4_500_000)
        handle.write(b"!")
    (problem,) = engine.verify()
    assert "block" in problem.what
    assert problem.name == "data"
    for cut in (slice(0, 390_000), slice(800_000, None, 3), slice(-1, -100_000, -2)):
        assert np.array_equal(engine.read(("a",), "data", (cut,)), values[cut])
    with pytest.raises(Corrupt, match="block 4"):
        engine.read(("a",), "data")
    assert [step.mended for step in engine.repair()] == [False]


@pytest.mark.parametrize("mode", ["flipped", "shorter", "gone"])
def test_a_whole_record_that_is_damaged_says_so(engine, path, mode):
    engine.write(("a",), Record("table", {"x": np.arange(3), "y": np.ones(3)}, {}, {}))
    file = path / "a" / "record.parquet"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw if mode == "flipped" else raw[:-1])
    if mode == "gone":
        file.unlink()
    with pytest.raises(Corrupt, match=r"'x' of 'a'.*record\.parquet"):
        engine.read_whole(("a",))


# -- strangers' stores -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**12]},
        {"shape": [-1]},
        {"shape": ["x"]},
        {"shape": [4, 1]},
        {"dtype": "O"},
        {"dtype": "os.system"},
        {"dtype": "<f4"},
        {"dtype": 5},
        {"stored": "nothing"},
        {"stored": "bytes"},
        {"dims": []},
        {"table": "other"},
        {"table": ""},
    ],
    ids=json.dumps,
)
def test_descriptions_that_lie_are_refused(engine, path, change):
    engine.write(("a",), item(np.arange(4)))
    engine.write(("b",), item(np.arange(4)))
    reseal(
        path / "a" / "lab.yaml",
        lambda given: {**given, "arrays": {"data": {**given["arrays"]["data"], **change}}},
    )
    with pytest.raises(LabError, match=r"'a'|a/lab"):
        engine.read(("a",), "data")
    assert [problem.key for problem in engine.verify()] in ([("a",)], [])
    assert engine.read(("b",), "data").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["../b/record.parquet", "/etc/passwd", "lab.yaml", "record.parquet/../x", 5])
def test_descriptions_name_files_beside_them_only(engine, path, name):
    engine.write(("a",), item(np.arange(4)))

    def change(given):
        given["tables"]["record"]["files"][0]["name"] = name
        return given

    reseal(path / "a" / "lab.yaml", change)
    with pytest.raises(Corrupt, match="a/lab"):
        engine.stat(("a",))


def put_parquet(engine, path, table, rows, **arrays):
    """Let a record be a Parquet file of a stranger, with sums that fit."""
    engine.write(("a",), item(np.arange(4)))
    pq.write_table(table, path / "a" / "record.parquet", compression="zstd")
    raw = (path / "a" / "record.parquet").read_bytes()

    def change(given):
        part = given["tables"]["record"]["files"][0]
        given["arrays"]["data"] |= {"shape": [rows], **arrays}
        sums = doc._table(doc.Table((read.Part("x", 0, len(raw), sums_of(raw)),), 0))["files"][0]["lab_sums"]
        part |= {"rows": rows, "size": len(raw), "lab_sums": sums}
        return given

    reseal(path / "a" / "lab.yaml", change)


def sums_of(raw):
    from datastore_lab.integrity import block_sums

    return block_sums(raw).astype("<u8").tobytes()


def test_a_small_file_that_claims_much_is_refused_before_memory_is_taken(engine, path, monkeypatch):
    put_parquet(engine, path, pa.table({"data": pa.array([0] * 4)}), 10**12)
    assert engine.stat(("a",)).arrays["data"].nbytes == 8 * 10**12
    with pytest.raises(EngineError, match="memory"):
        engine.read(("a",), "data")
    with pytest.raises(Corrupt, match="holds 4 rows"):
        engine.read(("a",), "data", (slice(5),))
    schema = pa.schema([pa.field("data", pa.int64(), nullable=False)])
    bomb = pa.Table.from_arrays([pa.array(np.zeros(1_000_000, "i8"))], schema=schema)
    put_parquet(engine, path, bomb, 1_000_000)
    assert (path / "a" / "record.parquet").stat().st_size < 100_000
    monkeypatch.setattr(read, "_LARGEST_PIECE", 1 << 20)
    with pytest.raises(Corrupt, match="claims to unpack"):
        engine.read(("a",), "data", (slice(5),))


@pytest.mark.parametrize(
    "values",
    [[1.5, 2, 3, 4], ["a", "b", "c", "d"], [1, None, 3, 4], [[1], [2], [3], [4]]],
    ids=["floats", "text", "null", "lists"],
)
def test_columns_of_another_type_are_refused(engine, path, values):
    put_parquet(engine, path, pa.table({"data": values}), 4)
    with pytest.raises(Corrupt, match=r"type|missing"):
        engine.read(("a",), "data")


def test_links_that_leave_the_store_are_refused(engine, path, tmp_path):
    other = ParquetFolderEngine(tmp_path / "outside", "w")
    other.write(("secret",), item([42]))
    other.close()
    for name in "abc":
        engine.write((name,), item([1, 2]))
    outside = tmp_path / "outside" / "secret"
    (path / "link").symlink_to(outside)
    for name, file in (("a", "record.parquet"), ("b", "lab.yaml")):
        (path / name / file).unlink()
        (path / name / file).symlink_to(outside / file)
    for key in (("link",), ("a",), ("b",)):
        with pytest.raises(EngineError, match="leads out"):
            engine.read(key, "data")
    assert {problem.key for problem in engine.verify()} == {("link",), ("a",), ("b",)}
    assert engine.read(("c",), "data").tolist() == [1, 2]


def test_places_that_are_no_store_are_refused_and_left_alone(tmp_path):
    folder, file, foreign, later = (tmp_path / name for name in ("folder", "file", "foreign", "later"))
    for place in (folder, foreign, later):
        place.mkdir()
    (folder / "thesis.txt").write_text("all")
    (foreign / "lab.yaml").write_text("name: another program")
    (later / "lab.yaml").write_bytes(doc.seal(b"lab_layout: 2\n"))
    file.write_text("x")
    before = sorted(str(place) for place in tmp_path.rglob("*"))
    for place, word in (
        (folder, "no Parquet folder"),
        (file, "is a file"),
        (foreign, "lab_layout"),
        (later, "newer"),
    ):
        for mode in ("a", "r", "r+", "w"):
            with pytest.raises(Foreign, match=word):
                ParquetFolderEngine(place, mode)
        with pytest.raises(AlreadyExists):
            ParquetFolderEngine(place, "x")
    with pytest.raises(NotFound):
        ParquetFolderEngine(tmp_path / "absent", "r")
    assert sorted(str(place) for place in tmp_path.rglob("*")) == before


def test_folders_of_other_programs_inside_are_no_items(engine, path):
    engine.write(("a",), item([1]))
    (path / ".git").mkdir()
    (path / "plots").mkdir()
    (path / "plots" / "a.png").write_bytes(b"png")
    assert list(engine.keys()) == [("a",)]
    assert list(engine.children()) == ["a"]
    with pytest.raises(NotFound):
        engine.stat(("plots",))
