"""Listing stores of many streams: by names and a few bytes, and no less true for it."""

import os

import numpy as np
import pytest

from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.engines.csv import CSVEngine
from datastore_lab.engines.parquet_file import ParquetFileEngine
from datastore_lab.errors import Corrupt
from datastore_lab.records import ArrayInfo, Stat

MAKES = [(ArrowEngine, ".arrow"), (ParquetFileEngine, ".parquet"), (CSVEngine, ".csv")]
NAMES = [f"s{number:02d}" for number in range(40)]
LONG = "µ" * 150
SPEC = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})


def put(engine, *key):
    appender = engine.append(key, SPEC)
    appender.extend({"x": np.arange(3.0)})
    appender.close({})


@pytest.fixture(params=MAKES, ids=lambda make: make[0].__name__)
def make(request, tmp_path):
    kind, suffix = request.param
    path = tmp_path / f"run{suffix}"
    engine = kind(path, durability="process")
    for name in NAMES:
        put(engine, name)
    engine.close()
    return lambda mode="r": kind(path, mode, durability="process")


def settle(folder):
    """Make a folder look as if nothing had been added to it for a minute."""
    found = folder.stat()
    os.utime(folder, ns=(found.st_atime_ns, found.st_mtime_ns - 60_000_000_000))


def test_a_listing_reads_no_file(make, monkeypatch):
    engine = make()
    engine._files.clear()
    read = []
    monkeypatch.setattr(engine, "_read_file", read.append)
    assert engine.stat(()).kind == "group"
    assert list(engine.children()) == NAMES
    assert list(engine.keys()) == [(name,) for name in NAMES]
    assert read == []


def test_a_remembered_listing_is_as_true_as_the_folder(make, tmp_path):
    settle(tmp_path)
    reader, writer = make(), make("a")
    assert list(reader.children()) == NAMES
    assert reader._remembered is not None
    put(writer, "new")
    assert list(reader.children()) == sorted([*NAMES, "new"])
    assert list(reader.children()) == sorted([*NAMES, "new"])
    for file in tmp_path.glob("run.s07.*"):
        file.unlink()
    assert "s07" not in list(reader.children())


def test_a_folder_that_has_just_changed_is_looked_at_again(make, tmp_path):
    reader, writer = make(), make("a")
    for number in range(5):
        put(writer, f"t{number}")
        assert list(reader.children())[len(NAMES) :] == [f"t{n}" for n in range(number + 1)]


def test_other_names_are_looked_into(make, tmp_path):
    writer = make("a")
    put(writer, LONG, "x")
    put(writer, "a.b/c")
    writer.close()
    suffix = writer.url.rpartition(".")[2]
    for file in tmp_path.glob("run.s00.*"):
        file.rename(tmp_path / file.name.replace("s00", "renamed"))
    (tmp_path / f"run.notes.{suffix}").write_bytes(b"x,y\n1,2\n")
    engine = make()
    assert list(engine.keys()) == sorted([*((name,) for name in NAMES[1:]), (LONG, "x"), ("a.b/c",)])
    assert list(engine.children()) == sorted([*NAMES[1:], LONG, "a.b/c"])


def test_a_damaged_file_is_listed_and_hides_no_other(make, tmp_path):
    suffix = make().url.rpartition(".")[2]
    file = tmp_path / f"run.s05.{suffix}{'.json' if suffix == 'csv' else ''}"
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"lab_key") + 1] ^= 1
    file.write_bytes(raw)
    engine = make()
    assert list(engine.children()) == NAMES
    with pytest.raises(Corrupt):
        engine.stat(("s05",))
    assert engine.read(("s06",), "x").tolist() == [0, 1, 2]
