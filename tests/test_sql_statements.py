"""How many statements it takes to read and to write in a database, and that so few of them suffice."""

import contextlib
import sqlite3

import numpy as np
import pytest
import servers
import sqlalchemy as sa

from datastore_lab.engines.sql import SQLEngine, lookup, ways
from datastore_lab.errors import Corrupt, NotFound
from datastore_lab.records import ArrayInfo, Record, Stat

DEEP = tuple(f"level{number}" for number in range(150))
TEXT = np.array(["x", "", "µm"], np.dtypes.StringDType())


@pytest.fixture(params=["sqlite", *servers.SERVERS])
def url(request, tmp_path):
    with servers.place(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def engine(url):
    with contextlib.closing(SQLEngine(url, "w", durability="process")) as engine:
        yield engine


def record(**arrays):
    return Record("array", {name: np.asarray(values) for name, values in arrays.items()}, {"n": 1}, {})


@contextlib.contextmanager
def heard(engine):
    """Collect what is said to the database."""
    said = []
    if engine._database.is_sqlite:
        raws = [c.connection.dbapi_connection for c in (engine._database._reader, engine._database._writer)]
        for raw in raws:
            raw.set_trace_callback(said.append)
        yield said
        for raw in raws:
            raw.set_trace_callback(None)
        return

    def note(_connection, _cursor, statement, *_rest):
        said.append(statement)

    sa.event.listen(engine._database._engine, "before_cursor_execute", note)
    yield said
    sa.event.remove(engine._database._engine, "before_cursor_execute", note)


def missing(engine, key):
    with pytest.raises(NotFound):
        engine.stat(key)


@pytest.mark.parametrize(
    "use",
    [
        lambda engine, key: engine.stat(key),
        lambda engine, key: engine.read(key, "v"),
        lambda engine, key: engine.read_whole(key),
        lambda engine, key: engine.update(key, {"n": 2}),
        lambda engine, key: engine.write(key, record(v=[2])),
        lambda engine, key: missing(engine, (*key[:-1], "none")),
    ],
    ids=["stat", "read", "read_whole", "update", "write", "missing"],
)
def test_a_deep_key_takes_no_more_statements_than_a_flat_one(engine, use):
    counts = []
    for key in (DEEP, ("one", "flat")):
        engine.write(key, record(v=[1]))
        engine.stat(key)
        with heard(engine) as said:
            use(engine, key)
        counts.append(len(said))
    assert counts[0] == counts[1]
    assert list(engine.verify()) == []


def test_the_way_to_a_node_is_looked_up_in_the_index(tmp_path):
    """SQLite may begin a join with any table, and would go over all nodes of the store."""
    SQLEngine(tmp_path / "lab.sqlite", "w").close()
    statement = str(ways.way(3)._statement.compile(dialect=sa.dialects.sqlite.dialect(paramstyle="named")))
    values = dict.fromkeys(
        ["store", "parent", "first", *(f"{n}{d}" for n in ("hash", "name") for d in range(3))]
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "lab.sqlite")) as raw:
        plan = [row[-1] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    searches = [line for line in plan if line.startswith("SEARCH")]
    assert len([line for line in searches if "store=? AND parent=? AND hash=?" in line]) == 2
    assert all("store=? AND" in line for line in searches)


def test_a_record_takes_two_statements_and_a_single_array_one(engine):
    """On SQLite, too, there is no transaction around them."""
    engine.write(("one",), record(v=[1]))
    engine.write(("many",), record(**{f"a{number}": [number] for number in range(6)}, text=TEXT))
    for key, count in [("one", 1), ("many", 2)]:
        engine.stat((key,))
        with heard(engine) as said:
            engine.read_whole((key,))
        assert len(said) == count, said


def test_a_whole_record_is_what_its_parts_are(engine):
    big = np.arange(300_000.0).reshape(3, 100_000)
    engine.write(("k",), record(v=[1, 2], text=TEXT, big=big, none=np.zeros((0, 3)), point=np.int8(4)))
    found = engine.read_whole(("k",))
    stat = engine.stat(("k",))
    assert (found.kind, found.meta) == (stat.kind, stat.meta)
    assert found.dims == {name: info.dims for name, info in stat.arrays.items()}
    for name, array in found.arrays.items():
        again = engine.read(("k",), name)
        assert (array.dtype, array.shape, array.tolist()) == (again.dtype, again.shape, again.tolist())
        assert array.flags.writeable
        assert array.base is None or not np.shares_memory(array, again)
    assert engine.read_whole(()) == Record("group", {}, {}, {})
    with pytest.raises(NotFound):
        engine.read_whole(("none",))


def test_a_whole_record_that_grows_has_rows_of_one_commit(engine, url):
    spec = Stat("stream", {n: ArrayInfo("<i8", (0,), ("t",), 0, None) for n in ("a", "b")}, {})
    stream = engine.append(("s",), spec)
    with contextlib.closing(SQLEngine(url, "r")) as reader:
        for turn in range(5):
            stream.extend({"a": np.full(3, turn), "b": np.full(3, turn)})
            stream.flush()
            found = reader.read_whole(("s",))
            assert len(found.arrays["a"]) == 3 * turn + 3
            assert found.arrays["a"].tolist() == found.arrays["b"].tolist()
    stream.close({})


@pytest.mark.parametrize("name", ["sqlite", *servers.SERVERS])
@pytest.mark.parametrize("change", ["replace", "grow", "delete"])
def test_what_changes_between_two_statements_is_read_again(name, change, tmp_path, monkeypatch):
    with servers.place(name, tmp_path) as url, contextlib.closing(SQLEngine(url, "w")) as writer:
        spec = Stat("stream", {n: ArrayInfo("<i8", (0,), ("t",), 0, None) for n in ("u", "v")}, {})
        stream = writer.append(("k",), spec)
        stream.extend({"u": np.array([1]), "v": np.array([1])})
        stream.flush()
        changes = [lambda: _make(change, writer, stream)]
        load = lookup.Lookup.load

        def and_then(self, *args, **options):
            found = load(self, *args, **options)
            if self._brief and changes:
                changes.pop()()
            return found

        monkeypatch.setattr(lookup.Lookup, "load", and_then)
        with contextlib.closing(SQLEngine(url, "r")) as reader:
            if change == "delete":
                with pytest.raises(NotFound):
                    reader.read_whole(("k",))
            else:
                expected = [1, 2] if change == "grow" else [7]
                found = reader.read_whole(("k",)).arrays
                assert [found[name].tolist() for name in ("u", "v")] == [expected] * 2
        assert not changes


def _make(change, writer, stream):
    if change == "replace":
        writer.write(("k",), record(u=[7], v=[7]))
    elif change == "delete":
        writer.delete(("k",))
    else:
        stream.extend({"u": np.array([2]), "v": np.array([2])})
        stream.flush()


def test_damage_is_told_of_a_whole_record(tmp_path):
    engine = SQLEngine(tmp_path / "lab.sqlite", "w")
    engine.write(("k",), record(v=[1], w=[2]))
    engine.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "lab.sqlite")) as raw, raw:
        raw.execute("UPDATE lab_part SET sum = sum + 1")
    with contextlib.closing(SQLEngine(tmp_path / "lab.sqlite", "r")) as engine, pytest.raises(Corrupt):
        engine.read_whole(("k",))
