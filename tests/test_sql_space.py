"""A SQLite file that is mostly free pages is written anew as it is closed, and closing never fails for it."""

import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
import servers

from datastore_lab import open_store
from datastore_lab.engines.sql import SQLEngine, mending, space
from datastore_lab.errors import EngineError
from datastore_lab.records import ArrayInfo, Record, Stat

KEPT = np.random.default_rng(0).random(20_000)
SMALL = 600_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lab.sqlite"


@pytest.fixture
def little(monkeypatch):
    """Files of any size are worth compacting."""
    monkeypatch.setattr(space, "LEAST", 100_000)


def record(values):
    return Record("array", {"data": values}, {}, {})


def dying(path, **options):
    """A store most of which is free."""
    engine = SQLEngine(path, **options)
    engine.write(("kept",), record(KEPT))
    for turn in range(4):
        engine.write(("group", str(turn)), record(np.random.default_rng(turn + 1).random(50_000)))
    engine.delete(("group",))
    return engine


def assert_whole(path):
    engine = SQLEngine(path, "r")
    assert list(engine.keys()) == [("kept",)]
    assert np.array_equal(engine.read(("kept",), "data"), KEPT)
    assert list(engine.verify()) == []
    engine.close()
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("share", "given_back"), [(0.95, False), (0.5, True), (0, True), (None, False)])
def test_the_share_that_has_to_be_free(path, little, share, given_back):
    dying(path, compact_above=share).close()
    assert (path.stat().st_size < SMALL) == given_back
    assert_whole(path)


def test_a_store_gives_back_when_it_is_closed_next(path, little):
    with open_store(path, compact_above=None) as store:
        dying(store.engine.url, compact_above=None).close()
    assert path.stat().st_size > 1_500_000
    with open_store(path) as store:
        before = store.revision()
    assert path.stat().st_size < SMALL
    assert open_store(path, "r").revision() >= before
    assert_whole(path)


def test_a_little_is_not_worth_writing_a_file_anew(path):
    dying(path, compact_above=0).close()
    assert path.stat().st_size > 1_500_000


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(path, share):
    with pytest.raises(ValueError, match="compact_above"):
        SQLEngine(path, compact_above=share)
    assert not path.exists()


def test_an_open_stream_and_an_open_transaction_keep_a_file_as_it_is(path, little):
    engine = dying(path)
    stream = engine.append(("run",), Stat("stream", {"v": ArrayInfo("<i8", (0,), ("time",), 0, None)}, {}))
    engine.close()
    assert path.stat().st_size > 1_500_000
    del stream
    engine = SQLEngine(path)
    with pytest.raises(EngineError, match="closed inside"), engine.transaction():
        engine.close()
    assert path.stat().st_size > 1_500_000


def test_closing_waits_for_no_other_writer(path, little):
    engine = dying(path, timeout=86_400)
    other = SQLEngine(path)
    with other.transaction():
        other.update((), {"n": 1})
        engine.close()
    other.close()
    assert path.stat().st_size < SMALL
    assert_whole(path)


def test_a_reader_goes_on_with_its_snapshot(path, little):
    engine = dying(path)
    reader = SQLEngine(path, "r")
    with reader._database.reading() as snapshot:
        count = snapshot.exec_driver_sql("SELECT count(*) FROM lab_part").scalar()
        engine.close()
        assert snapshot.exec_driver_sql("SELECT count(*) FROM lab_part").scalar() == count
    assert np.array_equal(reader.read(("kept",), "data"), KEPT)
    reader.close()


def test_closing_never_fails_for_want_of_room(path, little, monkeypatch):
    engine = dying(path)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    engine.close()
    assert path.stat().st_size > 1_500_000
    assert_whole(path)


def test_closing_never_fails_if_compacting_does(path, little, monkeypatch):
    engine = dying(path)
    monkeypatch.setattr(mending, "_statements", lambda _: ["VACUUM INTO '/nowhere/at/all'"])
    engine.close()
    assert path.stat().st_size > 1_500_000
    assert_whole(path)


def test_a_damaged_file_is_left_as_it_is(path, little):
    dying(path, compact_above=None).close()
    with sqlite3.connect(path) as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'lab_part'").fetchone()[0]
    raw.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 3)
        file.write(b"\xff\xff")
    before = path.read_bytes()
    SQLEngine(path).close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_server_looks_after_its_own_space(server, monkeypatch, tmp_path):
    monkeypatch.setattr(mending, "compact", None)  # would fail if it was called
    with servers.place(server, tmp_path) as url:
        open_store(url, "w", compact_above=0).close()
