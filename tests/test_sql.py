"""What is particular to stores in databases: turns of writers, damage, hostile files, secrets, sizes."""

import logging
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import servers
import sqlalchemy as sa

from datastore_lab import open_store
from datastore_lab.engines.sql import SQLEngine, SQLiteEngine, address
from datastore_lab.engines.sql.tables import metadata
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    Locked,
    NotFound,
    ReadOnly,
)
from datastore_lab.records import ArrayInfo, Record, Stat

FLIPS = 400
POINTS = 10_000_000


def record(**arrays):
    return Record("array", {name: np.asarray(values) for name, values in arrays.items()}, {"n": 1}, {})


ON_SERVERS = [pytest.param(name, marks=pytest.mark.slow) for name in servers.SERVERS]
mostly_slow = pytest.mark.parametrize("url", ["sqlite", *ON_SERVERS], indirect=True)


@pytest.fixture(params=["sqlite", *servers.SERVERS])
def url(request, tmp_path):
    with servers.place(request.param, tmp_path) as url:
        yield url


# -- sizes -------------------------------------------------------------------------------------------


@mostly_slow
def test_ten_million_points_take_bounded_memory(url):
    """Written whole, appended, and read in slices: never much beside the array itself."""
    values = np.random.default_rng(0).random(POINTS)
    engine = SQLEngine(url, "w", durability="process")
    tracemalloc.start()
    engine.write(("whole",), record(v=values))
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("t",), 0, None)}, {})
    stream = engine.append(("grown",), spec)
    for start in range(0, POINTS, 500_000):
        stream.extend({"v": values[start : start + 500_000]})
    stream.close({})
    for key in ("whole", "grown"):
        for start in range(0, POINTS, 1_000_000):
            found = engine.read((key,), "v", (slice(start, start + 1_000_000),))
            assert np.array_equal(found, values[start : start + 1_000_000])
    in_slices = tracemalloc.get_traced_memory()[1]
    assert np.array_equal(engine.read(("whole",), "v"), values)
    whole = tracemalloc.get_traced_memory()[1] - values.nbytes
    tracemalloc.stop()
    engine.close()
    assert in_slices < 100_000_000
    assert whole < 100_000_000


def test_a_row_of_a_part_is_no_row_of_a_value(tmp_path):
    with open_store(tmp_path / "lab.sqlite") as store:
        store["a"] = np.random.default_rng(0).random(1_000_000)
    with sqlite3.connect(tmp_path / "lab.sqlite") as raw:
        assert raw.execute("select count(*), max(length(bytes)) from lab_part").fetchone() == (8, 1 << 20)
    raw.close()


@mostly_slow
def test_attributes_of_many_megabytes(url):
    engine = SQLEngine(url, "w")
    meta = {"text": "µ" * 20_000_000, "n": 1}
    engine.write(("k",), Record("value", {}, meta, {}))
    engine.write(("k", "below"), record(v=[1]))
    engine.update(("k",), {"n": 2})
    assert engine.stat(("k",)).meta == {**meta, "n": 2}
    engine.update(("k",), {"text": ""})
    engine.delete(("k", "below"))
    assert engine.stat(("k",)).meta == {"text": "", "n": 2}
    engine.compact()
    engine.close()


# -- turns -------------------------------------------------------------------------------------------

_COUNTER = """
import sys
import numpy as np
from datastore_lab.engines.sql import SQLEngine
from datastore_lab.records import Record, ArrayInfo, Stat
engine, name = SQLEngine(sys.argv[1], "a", durability="process"), sys.argv[2]
stream = engine.append(("stream", name), Stat("stream", {"v": ArrayInfo("<i8", (0,), ("t",), 0, None)}, {}))
for turn in range(int(sys.argv[3])):
    with engine.transaction():
        number = engine.stat(("count",)).meta["n"]
        engine.update(("count",), {"n": number + 1})
        engine.write((name, str(turn)), Record("array", {"v": np.full(10, number)}, {}, {}))
    stream.extend({"v": np.array([turn])})
    stream.flush()
stream.close({})
engine.close()
"""


def test_several_processes_take_turns(url):
    """Read and write again in a transaction: no increment is lost, and each got a number of its own."""
    engine = SQLEngine(url, "w")
    engine.write(("count",), Record("value", {}, {"n": 0}, {}))
    command = [sys.executable, "-c", _COUNTER, url]
    running = [subprocess.Popen([*command, f"p{number}", "10"]) for number in range(2)]
    assert [process.wait(120) for process in running] == [0] * 2
    assert engine.stat(("count",)).meta == {"n": 20}
    numbers = [int(engine.read(key, "v")[0]) for key in list(engine.keys()) if key[0].startswith("p")]
    assert sorted(numbers) == list(range(20))
    for number in range(2):
        assert engine.read(("stream", f"p{number}"), "v").tolist() == list(range(10))
    assert list(engine.verify()) == []
    engine.close()


_INTRUDER = """
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    print(raw.execute("PRAGMA journal_mode=DELETE").fetchone())
except sqlite3.OperationalError as error:
    print(error)
"""


def test_looking_at_a_file_keeps_its_locks(tmp_path):
    """A name that tells nothing has the file looked into, by the very process that holds locks on it."""
    path = tmp_path / "lab.dat"
    engine = SQLiteEngine(path, "w")
    engine.write(("a",), record(v=[1]))
    open_store(path, "r").close()
    command = [sys.executable, "-c", _INTRUDER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "locked" in done.stdout  # nobody takes the log away from under an open store
    engine.close()


def test_a_place_that_vanished_gets_no_new_file(tmp_path):
    path = tmp_path / "place" / "lab.sqlite"
    path.parent.mkdir()
    engine = SQLiteEngine(path, "w")
    engine.write(("a",), record(v=[1]))
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.mkdir()
    engine._database.leave()
    for use in (lambda: engine.write(("b",), record(v=[1])), lambda: engine.stat(("a",)), engine.compact):
        with pytest.raises(EngineError):
            use()
    engine.close()
    assert list(path.parent.iterdir()) == []


def test_who_waits_too_long_is_told_of_the_holder(url, monkeypatch):
    monkeypatch.setattr("datastore_lab.engines.sql.engine.PATIENCE", 1.0)
    first, second = SQLEngine(url, "a"), SQLEngine(url, "a")
    with first.transaction():
        first.write(("a",), record(v=[1]))
        assert list(second.keys()) == []  # a reader waits for nobody
        with pytest.raises(Locked, match=r"process \d+|session \d+"):
            second.write(("b",), record(v=[2]))
    second.write(("b",), record(v=[2]))
    assert set(first.keys()) == {("a",), ("b",)}
    first.close()
    second.close()


def test_a_change_of_another_program_is_waited_for(tmp_path):
    """SQLite refuses to begin its log at once while a change of the plain kind is under way."""
    SQLiteEngine(tmp_path / "lab.sqlite", "w").close()
    other = sqlite3.connect(tmp_path / "lab.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    engine = SQLiteEngine(tmp_path / "lab.sqlite", "a")
    release = threading.Timer(0.5, other.execute, ["ROLLBACK"])
    release.start()
    engine.write(("a",), record(v=[1]))
    release.join()
    assert engine.read(("a",), "v").tolist() == [1]
    engine.close()
    other.close()


@pytest.mark.parametrize("name", servers.SERVERS)
def test_a_connection_that_is_cut_leaves_nothing_of_its_transaction(name):
    url = servers.new_store(servers.server(name))
    engine = SQLEngine(url, "a")
    engine.write(("before",), record(v=[1]))
    with pytest.raises(EngineError), engine.transaction():  # noqa: PT012
        engine.write(("lost",), record(v=np.zeros(1000)))
        assert ("lost",) in set(engine.keys())
        _cut(url, engine)
        engine.write(("lost", "too"), record(v=[2]))
        list(engine.keys())
    assert list(engine.keys()) == [("before",)]  # connected again
    engine.write(("after",), record(v=[3]))
    assert set(engine.keys()) == {("before",), ("after",)}
    engine.close()
    servers.remove_store(url)


def _cut(url, engine):
    own = sa.create_engine(sa.make_url(url).difference_update_query(["lab"]))
    postgresql = engine.url.startswith("postgresql")
    number = engine._database._writer.exec_driver_sql(
        "SELECT pg_backend_pid()" if postgresql else "SELECT CONNECTION_ID()"
    ).scalar()
    with own.connect() as connection:
        connection.exec_driver_sql(
            f"SELECT pg_terminate_backend({number})" if postgresql else f"KILL {number}"
        )
    own.dispose()


# -- damage ------------------------------------------------------------------------------------------


def _sample(place):
    draw = np.random.default_rng(0)
    expected = {("big",): record(d=draw.random(40_000))}
    for number in range(12):
        text = np.array(["x", "yy", "zzz"], np.dtypes.StringDType())
        expected[f"g{number % 3}", f"k{number}"] = record(a=draw.integers(0, 9, (50, 3)), t=text)
    engine = SQLEngine(place, "w")
    with engine.transaction():
        for key, made in expected.items():
            engine.write(key, made)
    engine.close()
    return expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_flipped_bit_lies(tmp_path, faults):
    """A bit that is not as it was is told of, or it is one that nothing is kept in."""
    path, draw = tmp_path / "lab.sqlite", random.Random(1)
    expected = _sample(path)
    whole = path.read_bytes()
    for _ in range(faults.times(FLIPS)):
        copy, place = bytearray(whole), draw.randrange(8 * len(whole))
        copy[place // 8] ^= 1 << place % 8
        path.write_bytes(copy)
        try:
            engine = SQLiteEngine(path, "r")
        except LabError:
            continue
        seen = _compare(engine, expected)
        assert seen <= bool(_problems(engine)), f"bit {place}: read as damaged, but verify() is content"
        engine.close()
    faults.tried("SQLite", "single flipped bits in the file", faults.times(FLIPS))


_COLUMNS = {
    "lab_node": ["parent", "position", "hash", "name", "mark", "kind", "record", "seal", "children", "tally"],
    "lab_part": ["size", "codec", "sum", "bytes"],
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", servers.SERVERS)
def test_no_flipped_bit_of_a_column_lies(name, faults):
    """One bit of a value in the tables is another one: every item is as it was, or that is told."""
    url, draw = servers.new_store(servers.server(name)), random.Random(2)
    expected, flips = _sample(url), faults.times(FLIPS)
    engine, raw = SQLEngine(url, "r"), sa.create_engine(sa.make_url(url).difference_update_query(["lab"]))
    for turn in range(flips):
        table = metadata.tables[draw.choice(sorted(_COLUMNS))]
        column = table.c[draw.choice(_COLUMNS[table.name])]
        with raw.begin() as connection:
            row = draw.choice(connection.execute(sa.select(table).where(_is_of(table, engine))).all())
            where = sa.and_(*(key == row._mapping[key.name] for key in table.primary_key))
            _set(connection, column, where, _flipped(row._mapping[column.name], draw))
        told = _compare(engine, expected)
        assert told <= bool(_problems(engine)), f"turn {turn}: {column}, verify() is content"
        with raw.begin() as connection:
            _set(connection, column, where, row._mapping[column.name])
    assert not _compare(engine, expected)
    assert _problems(engine) == []
    engine.close()
    raw.dispose()
    servers.remove_store(url)
    faults.tried(name, "single flipped bits in columns", flips)


def _is_of(table, engine):
    return table.c.store == engine._store


def _set(connection, column, where, value):
    connection.execute(sa.update(column.table).where(where).values({column.name: value}))


def _flipped(value, draw):
    if isinstance(value, int):
        return value ^ 1 << draw.randrange(31)
    if isinstance(value, str):  # a server keeps no text that is none
        place = draw.randrange(len(value))
        other = chr(ord(value[place]) ^ 1 << draw.randrange(5))
        return value[:place] + (other if other != "\0" else "\1") + value[place + 1 :]
    if not value:  # the name of the root has no bit
        return b"\1"
    place, copy = draw.randrange(8 * len(value)), bytearray(value)
    copy[place // 8] ^= 1 << place % 8
    return bytes(copy)


def _compare(engine, expected):
    """Whether damage was told of; values, names and attributes that differ silently fail the test."""
    told = False
    try:
        assert set(engine.keys()) == set(expected)
    except LabError:
        told = True
    for key, made in expected.items():
        try:
            assert engine.stat(key).meta == made.meta
            for name, array in made.arrays.items():
                assert np.array_equal(engine.read(key, name), array)
        except NotFound as error:
            pytest.fail(f"{key} has vanished: {error}")
        except LabError:
            told = True
    return told


def _problems(engine):
    try:
        return list(engine.verify())
    except LabError as error:
        return [error]


def _change(path, *statements):
    raw = sqlite3.connect(path)
    with raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    ("statement", "mended", "accepted"),
    [
        ("update lab_node set tally = tally + 1 where id = 1", True, True),
        ("update lab_node set children = children + 1 where id = 1", True, True),
        ("update lab_store set revision = revision + 7", True, True),
        ("update lab_node set record = replace(record, '\"n\": 1', '\"n\": 2') where id > 1", False, True),
        ("update lab_node set name = cast('other' as blob) where name = cast('big' as blob)", False, True),
        ("delete from lab_node where name = cast('big' as blob)", False, True),
        ("update lab_part set sum = sum + 1 where array = 3", False, True),
        ("delete from lab_part where array = 3", False, False),
    ],
)
def test_repair_mends_what_it_can_and_says_so(tmp_path, statement, mended, accepted):
    path = tmp_path / "lab.sqlite"
    _sample(path)
    _change(path, statement)
    engine = SQLiteEngine(path, "a")
    assert list(engine.verify()) != []
    done = list(engine.repair())
    assert done
    assert all(step.mended for step in done) == mended
    if not mended:
        assert list(engine.verify()) != []
        list(engine.repair(accept=True))
    assert (list(engine.verify()) == []) == accepted
    engine.close()


def test_what_vanished_is_not_said_to_be_missing(tmp_path):
    path = tmp_path / "lab.sqlite"
    _sample(path)
    _change(path, "delete from lab_node where name = cast('big' as blob)")
    engine = SQLiteEngine(path, "r")
    with pytest.raises(Corrupt):
        engine.stat(("big",))
    with pytest.raises(Corrupt):
        list(engine.children())
    assert engine.read(("g0", "k0"), "a").shape == (50, 3)
    engine.close()


# -- files of others ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "r+", "a", "w"])
def test_a_file_of_another_program_is_left_alone(tmp_path, mode):
    path = tmp_path / "other.sqlite"
    _change(path, "create table thesis (chapter text)", "insert into thesis values ('1')")
    before = path.read_bytes()
    with pytest.raises(Foreign, match="another program"):
        open_store(path, mode)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_a_store_says_what_to_do(tmp_path):
    path = tmp_path / "lab.sqlite"
    for content in (b"", b"abc", b"no database at all" * 500):
        path.write_bytes(content)
        expected = (NotFound, "mode 'a' makes one") if not content else (Foreign, "another name")
        for mode in ("r", "r+"):
            with pytest.raises(expected[0], match=expected[1]):
                open_store(path, mode)
        assert path.read_bytes() == content
    path.write_bytes(b"")
    with open_store(path, "a") as store:
        store["a"] = 1


@pytest.mark.parametrize(
    "statement",
    [
        "create trigger t after insert on lab_node begin delete from lab_part; end",
        "drop table lab_part; create view lab_part as select * from lab_node",
        "drop table lab_part; create virtual table lab_part using fts5(bytes)",
        "drop table lab_part; create table lab_part (a, b generated always as (a + 1))",
        "drop table lab_part; create table lab_part as select * from lab_node",
        "create index lab_bad on lab_node (abs(id))",
    ],
)
def test_a_schema_that_would_run_something_is_refused(tmp_path, statement):
    path = tmp_path / "lab.sqlite"
    _sample(path)
    parts = [statement] if "trigger" in statement else statement.split("; ")
    _change(path, *parts)
    for mode in ("r", "a"):
        with pytest.raises(LabError, match=r"lab\.sqlite"):
            open_store(path, mode)["big"]


def test_a_later_layout_is_refused(tmp_path):
    from datastore_lab.engines.sql.nodes import store_seal

    path = tmp_path / "lab.sqlite"
    _sample(path)
    raw = sqlite3.connect(path)
    raw.row_factory = sqlite3.Row
    row = {**dict(raw.execute("select * from lab_store").fetchone()), "lab_layout": 99}
    raw.close()
    _change(path, f"update lab_store set lab_layout = 99, seal = '{store_seal(row)}'")
    with pytest.raises(Foreign, match="layout 99"):
        open_store(path, "r")


@pytest.mark.parametrize(
    "record",
    [
        '{"arrays": [{"name": "d", "dtype": "<f8", "shape": [1099511627776], "part": 1048576, "id": 3}]}',
        '{"arrays": [{"name": "d", "dtype": "<f8", "shape": [-1], "part": 1048576, "id": 3}], "meta": {}}',
        '{"arrays": [{"name": "d", "dtype": "O", "shape": [1], "part": 1048576, "id": 3}], "meta": {}}',
        '{"arrays": [{"name": "d", "dtype": "<f8", "shape": [1], "part": 1e30, "id": 3}], "meta": {}}',
        "[" * 100_000,
    ],
)
def test_a_declaration_that_claims_too_much_is_refused(tmp_path, record):
    from datastore_lab.engines.sql.nodes import seal

    path = tmp_path / "lab.sqlite"
    _sample(path)
    record = record.replace('"id": 3}]}', '"id": 3}], "meta": {}}')
    raw = sqlite3.connect(path)
    number = raw.execute("select id from lab_node where name = cast('big' as blob)").fetchone()[0]
    with raw:
        values = record, seal(1, number, b"array", record, None), number
        raw.execute("update lab_node set record = ?, seal = ? where id = ?", values)
    raw.close()
    engine = SQLiteEngine(path, "r")
    tracemalloc.start()
    with pytest.raises(Corrupt):
        engine.read(("big",), "d")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    engine.close()


def test_a_bomb_in_a_part_is_not_unpacked(tmp_path):
    import pyarrow as pa

    path = tmp_path / "lab.sqlite"
    _sample(path)
    bomb = pa.compress(bytes(1 << 28), codec="zstd", asbytes=True)
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("update lab_part set bytes = ?, codec = 1", (bomb,))
    raw.close()
    engine = SQLiteEngine(path, "r")
    tracemalloc.start()
    with pytest.raises(Corrupt):
        engine.read(("big",), "d")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    engine.close()


# -- addresses and secrets ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", servers.SERVERS)
def test_a_password_is_shown_nowhere(name, caplog):
    caplog.set_level(logging.DEBUG)
    place = sa.make_url(servers.new_store(servers.server(name)))
    secret = "geheim/@:%"
    url = place.set(password=secret).render_as_string(hide_password=False)
    texts = []
    try:
        store = open_store(url)
    except LabError as error:  # a server that asks for the password
        texts.append(f"{error} {error.key} {error.__cause__!r}")
    else:
        store["a"] = 1
        texts += [store.url, repr(store), repr(store.engine), str(pickle.dumps(store))]
        with pytest.raises(NotFound) as caught:
            store["b"]
        texts.append(str(caught.value))
        store.close()
        servers.remove_store(place.render_as_string(hide_password=False))
    with pytest.raises(LabError) as refused:
        open_store(place.set(password=secret, port=1).render_as_string(hide_password=False))
    texts.append(f"{refused.value} {refused.value.key} {refused.value.__cause__!r}")
    for text in [*texts, caplog.text]:
        assert "geheim" not in text


@pytest.mark.parametrize("name", servers.SERVERS)
def test_stores_in_one_database_are_apart(name):
    urls = [servers.new_store(servers.server(name)) for _ in range(2)]
    first, second = (open_store(url) for url in urls)
    first["a"], second["b"] = 1, 2
    assert (list(first), list(second)) == (["a"], ["b"])
    first.close()
    open_store(urls[0], "w").close()
    assert list(second) == ["b"]
    with pytest.raises(NotFound):
        open_store(servers.new_store(servers.server(name)), "r")
    second.close()
    for url in urls:
        servers.remove_store(url)


@pytest.mark.parametrize("lab", ["A", "a-b", "a;drop", "1a", "x" * 61])
def test_names_of_stores_that_are_refused(lab):
    with pytest.raises(BadKey):
        address.parse(f"postgresql://h/d?lab={lab}")


def test_a_file_is_also_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///one.sqlite") as store:
        store["a"] = 1
    with open_store("one.sqlite", "r") as store:
        assert store["a"] == 1
    assert [path.name for path in Path().iterdir()] == ["one.sqlite"]
    for bad in ("sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=ro"):
        with pytest.raises(EngineError):
            open_store(bad)


@pytest.mark.parametrize("mode", ["a", "x"])
def test_several_may_make_a_file_at_the_same_moment(tmp_path, mode):
    for number in range(10):
        path, start, opened = tmp_path / f"{number}.sqlite", threading.Barrier(4), []

        def make(key, path=path, start=start, opened=opened):
            start.wait()
            try:
                with open_store(path, mode, timeout=30) as store:
                    store[key] = 1
            except LabError as error:
                opened.append(type(error))
            else:
                opened.append(key)

        makers = [threading.Thread(target=make, args=(f"k{key}",)) for key in range(4)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()
        made = [key for key in opened if isinstance(key, str)]
        assert len(made) == (4 if mode == "a" else 1)
        assert {kind for kind in opened if kind not in made} <= {AlreadyExists}
        with open_store(path, "r") as store:
            assert sorted(store) == sorted(made)


def test_a_removed_file_takes_no_more_changes(tmp_path):
    engine = SQLiteEngine(tmp_path / "lab.sqlite", "w")
    engine.write(("a",), record(v=[1]))
    (tmp_path / "lab.sqlite").unlink()
    with pytest.raises(EngineError, match="removed or replaced"):
        engine.write(("b",), record(v=[1]))
    engine.close()


def test_a_file_whose_making_was_interrupted_says_how_it_is_settled(tmp_path):
    path = tmp_path / "lab.sqlite"
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA cache_size=1")
    raw.execute("CREATE TABLE t (x)")
    raw.execute("BEGIN")
    raw.execute("INSERT INTO t VALUES (zeroblob(100000))")  # more than is cached: the file is changed already
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob("lab.sqlite*"):
        shutil.copy(file, left)
    raw.close()
    assert (left / "lab.sqlite-journal").stat().st_size
    with pytest.raises(ReadOnly, match="mode 'r\\+'"):
        SQLiteEngine(left / "lab.sqlite", "r")
    with pytest.raises(Foreign):  # settled, it is what it was: another program's
        SQLiteEngine(left / "lab.sqlite", "r+")
    assert sqlite3.connect(left / "lab.sqlite").execute("SELECT count(*) FROM t").fetchone() == (0,)
