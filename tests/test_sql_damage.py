"""SQLite files in which something is not as it was written, by damage or on purpose: told, and mended."""

import contextlib
import json
import os
import shutil
import sqlite3
import struct

import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.engines.sql import SQLEngine
from datastore_lab.engines.sql.nodes import seal, store_seal
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, NotFound
from datastore_lab.records import Record

PAGE = 4096
KEYS = [("a",), ("b",), ("c",), ("g", "h", "i")]

pytestmark = pytest.mark.timeout(60)


def record(value):
    return Record("array", {"v": np.asarray([value])}, {"n": value}, {})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lab.sqlite"
    with contextlib.closing(SQLEngine(path, "w")) as engine, engine.transaction():
        for number, key in enumerate(KEYS):
            engine.write(key, record(number))
    return path


@contextlib.contextmanager
def sqlite(path):
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        yield raw


def number_of(name):
    return f"(SELECT id FROM lab_node WHERE name = CAST('{name}' AS BLOB))"


def tried(action):
    """What an action gives, or the error that it is refused with."""
    try:
        return action()
    except LabError as error:
        return error


# -- indexes -----------------------------------------------------------------------------------------

INDEXES = ["lab_node_hash", "lab_node_order", "sqlite_autoindex_lab_node_1"]


def lose(path, index, place):
    """Take one entry out of an index, as a lost write does; gives whether there was one."""
    with sqlite(path) as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (index,)).fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        head = file.read(8)
        assert head[0] == 10  # a page of an index that is its only one
        count = struct.unpack(">H", head[3:5])[0]
        cells = list(struct.unpack(f">{count}H", file.read(2 * count)))
        if place >= count:
            return False
        file.seek((page - 1) * PAGE + cells.pop(place))
        lost = 1 + file.read(1)[0]
        file.seek((page - 1) * PAGE + 3)
        file.write(struct.pack(">HHB", count - 1, struct.unpack(">H", head[5:7])[0], head[7] + lost))
        file.seek((page - 1) * PAGE + 8)
        file.write(struct.pack(f">{count - 1}H", *cells))
    return True


@pytest.mark.parametrize("index", INDEXES)
def test_what_an_index_has_lost_is_never_said_to_be_missing(path, index):
    """Nor is a second node put in its place, which would hide one of the two once the index is mended."""
    whole, losses = path.read_bytes(), 0
    for place in range(20):
        path.write_bytes(whole)
        if not lose(path, index, place):
            break
        losses += 1
        with contextlib.closing(SQLEngine(path, "a")) as engine:
            seen = []
            for number, key in enumerate(KEYS):
                seen.append(tried(lambda key=key: engine.read(key, "v").tolist()))
                assert seen[-1] == [number] or isinstance(seen[-1], Corrupt)
            listed = tried(lambda: list(engine.keys()))
            assert listed == KEYS or isinstance(listed, Corrupt)
            assert list(engine.verify()) != []
            expected = {}
            for number, key in enumerate(KEYS):
                done = tried(lambda key=key: engine.write(key, record(100)))
                assert done is None or isinstance(done, Corrupt)
                expected[key] = number if done else 100
            assert any(step.mended for step in engine.repair())
            assert list(engine.keys()) == KEYS
            assert {key: int(engine.read(key, "v")[0]) for key in KEYS} == expected
            assert list(engine.verify()) == []
    assert losses == 7  # root, a, b, c, g, h, i


def test_a_damaged_hash_hides_no_node_from_a_new_one(path):
    with sqlite(path) as raw:
        raw.execute("UPDATE lab_node SET hash = hash + 1 WHERE name = CAST('b' AS BLOB)")
    with contextlib.closing(SQLEngine(path, "a")) as engine:
        with pytest.raises(Corrupt, match="repair"):
            engine.write(("b",), record(100))
        with pytest.raises(Corrupt, match="repair"):
            engine.move(("a",), ("b",))
        engine.write(("other",), record(5))  # others are not kept from being written
        assert all(step.mended for step in engine.repair())
        assert engine.read(("b",), "v").tolist() == [1]
        assert list(engine.keys()) == [*KEYS, ("other",)]
        assert list(engine.verify()) == []


def test_children_are_looked_at_once_and_not_at_every_write(path, monkeypatch):
    from datastore_lab.engines.sql.lookup import Lookup

    calls, asked = [], Lookup.has_all_children
    monkeypatch.setattr(Lookup, "has_all_children", lambda self, row: calls.append(row) or asked(self, row))
    with contextlib.closing(SQLEngine(path, "a")) as engine, contextlib.closing(SQLEngine(path)) as other:
        for number in range(5):
            engine.write((f"n{number}",), record(number))
        assert len(calls) == 1
        other.write(("o",), record(1))
        engine.write(("n5",), record(5))
        assert len(calls) == 3


# -- trees -------------------------------------------------------------------------------------------

RINGS = {
    "a node below its own child": ("g", "i"),
    "a node below itself": ("g", "g"),
    "the root below a leaf": ("", "i"),
    "the root below a child": ("", "g"),
}
USES = {
    "children": lambda engine: list(engine.children()),
    "children of one": lambda engine: list(engine.children(("g",))),
    "children of a leaf": lambda engine: list(engine.children(("g", "h", "i"))),
    "keys": lambda engine: list(engine.keys()),
    "keys of one": lambda engine: list(engine.keys(("g",))),
    "stat": lambda engine: engine.stat(("g", "h", "i")),
    "verify": lambda engine: list(engine.verify()),
    "move": lambda engine: engine.move(("g",), ("z",)),
    "move into": lambda engine: engine.move(("a",), ("g", "h", "i", "a")),
    "delete": lambda engine: engine.delete(("g",)),
    "delete below": lambda engine: engine.delete(("g", "h")),
    "repair": lambda engine: list(engine.repair()),
    "accept": lambda engine: list(engine.repair(accept=True)),
    "compact": lambda engine: engine.compact(),
    "read": lambda engine: engine.read(("b",), "v"),
}


@pytest.mark.parametrize("ring", RINGS)
def test_a_ring_in_the_tree_ends_every_walk(path, ring):
    child, parent = RINGS[ring]
    with sqlite(path) as raw:
        own = "id = 1" if not child else f"id = {number_of(child)}"
        raw.execute(f"UPDATE lab_node SET parent = {number_of(parent)} WHERE {own}")
    whole = path.read_bytes()
    for name, use in USES.items():
        path.write_bytes(whole)
        with contextlib.closing(SQLEngine(path, "a")) as engine:
            done = tried(lambda use=use, engine=engine: use(engine))
            if name in {"children", "keys", "keys of one"} and child:
                assert isinstance(done, Corrupt), name
            elif isinstance(done, LabError):
                assert not isinstance(done, NotFound), name
            assert list(engine.verify()) != [] or name in {"accept", "repair"}, name
            assert tried(lambda engine=engine: engine.read(("b",), "v").tolist()) == [1], name


@pytest.mark.parametrize("bent", [number_of("b"), "1"], ids=["a sibling", "the root"])
def test_a_delete_takes_nothing_that_was_not_written_there(path, bent):
    """One flipped bit in a parent's number may put anything below what is to be deleted."""
    with sqlite(path) as raw:
        raw.execute(f"UPDATE lab_node SET parent = {number_of('a')} WHERE id = {bent}")
    with contextlib.closing(SQLEngine(path, "a")) as engine:
        with pytest.raises(Corrupt, match="not as it was written"):
            engine.delete(("a",))
        engine.delete(("g",))
    with sqlite(path) as raw:
        assert raw.execute("SELECT count(*) FROM lab_node").fetchone() == (4,)
        assert raw.execute("SELECT count(*) FROM lab_part").fetchone() == (3,)


# -- what a stranger's file may hold -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ([1 << 40], 1),
        ([1 << 61, 0], 1 << 20),
        ([0, 1 << 61, 1 << 61], 1 << 20),
        ([1 << 61, 1 << 61], 1),
        ([1] * 64, 8),
    ],
    ids=["many parts", "empty and long", "empty and huge", "huge", "too many axes"],
)
def test_no_claim_keeps_anybody_busy(path, shape, part):
    array = {"name": "v", "dtype": "<i8", "shape": shape, "part": part, "id": 3}
    text = json.dumps({"arrays": [array], "meta": {}})
    with sqlite(path) as raw:
        number = raw.execute(f"SELECT {number_of('a')}").fetchone()[0]
        values = text, seal(1, number, b"array", text, None), number
        raw.execute("UPDATE lab_node SET record = ?, seal = ? WHERE id = ?", values)
    with contextlib.closing(SQLEngine(path, "a")) as engine:
        for use in (engine.read, lambda key, _: engine.read_whole(key)):
            with pytest.raises(Corrupt):
                use(("a",), "v")
        assert [problem.key for problem in engine.verify()] == [("a",)]
        assert not any(step.mended for step in engine.repair())
        list(engine.repair(accept=True))
        assert engine.read(("b",), "v").tolist() == [1]


def test_places_that_are_none_have_an_end(path):
    """A page of siblings is asked for by the place of the last one, which a stranger may have left out."""
    with sqlite(path) as raw:
        raw.execute("PRAGMA writable_schema = 1")
        raw.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'position BIGINT NOT NULL', 'position BIGINT')"
        )
    with sqlite(path) as raw:
        copy = "SELECT store, 1000 + ?, parent, NULL, hash, name, mark, kind, record, spill, seal, 0, 0"
        copies = [(number,) for number in range(2500)]
        raw.executemany(f"INSERT INTO lab_node {copy} FROM lab_node WHERE id = 2", copies)
    with contextlib.closing(SQLEngine(path, "a")) as engine:
        for walk in (engine.children, engine.keys):
            with pytest.raises(Corrupt):
                list(walk())
        assert list(engine.verify()) != []
        assert list(engine.repair()) != []


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("lab_node", "id", float("inf")),
        ("lab_node", "position", "here"),
        ("lab_part", "array", 3.0),
        ("lab_part", "number", 0.0),
        ("lab_store", "next", "many"),
        ("lab_store", "next", 2**63 - 1),
        ("lab_store", "revision", b"\1"),
        ("lab_store", "revision", float("inf")),
        ("lab_store", "lab_layout", b""),
    ],
)
def test_a_value_of_another_type_is_damage(path, table, column, value):
    """SQLite keeps anything in any column, whose type is only what a stranger says it is."""
    with sqlite(path) as raw:
        raw.execute("PRAGMA writable_schema = 1")
        loose = "replace(replace(sql, 'BIGINT', 'BLOB'), 'INTEGER NOT NULL', 'BLOB')"
        raw.execute(f"UPDATE sqlite_master SET sql = {loose} WHERE name IN ('lab_node', 'lab_part')")
    with sqlite(path) as raw:
        raw.row_factory = sqlite3.Row
        own = 2 if column == "position" else 1
        raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = {own}", (value,))
        row = raw.execute("SELECT * FROM lab_store").fetchone()
        raw.execute("UPDATE lab_store SET seal = ?", (store_seal(row),))
    more = {
        "read_whole": lambda engine: engine.read_whole(("a",)),
        "revision": lambda engine: engine.revision(),
        "layout": lambda engine: engine.layout,
        "update": lambda engine: engine.update(("a",), {"n": 2}),
        "read a": lambda engine: engine.read(("a",), "v"),
    }
    whole = path.read_bytes()
    for use in [*USES.values(), *more.values()]:
        path.write_bytes(whole)
        engine = tried(lambda: SQLEngine(path, "a"))
        if isinstance(engine, LabError):
            assert isinstance(engine, Corrupt)
            return
        with contextlib.closing(engine):
            tried(lambda use=use, engine=engine: use(engine))


def test_a_journal_that_names_another_file_deletes_none(path, tmp_path):
    """SQLite takes what is named at a journal's end for one more journal, and deletes it."""
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("chapter 1")
    left = tmp_path / "left"
    left.mkdir()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA cache_size = 1")
    raw.execute("BEGIN")
    raw.execute(
        "UPDATE lab_part SET bytes = zeroblob(200000)"
    )  # more than is cached: the file is changed already
    for file in (path, path.with_name("lab.sqlite-journal")):
        shutil.copy(file, left)
    raw.close()
    name = os.fsencode(thesis)
    with (left / "lab.sqlite-journal").open("ab") as journal:
        journal.write(struct.pack(">I", 0x40000000 // PAGE + 1) + name)
        journal.write(struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7"))
    for mode in ("r", "r+", "a", "w"):
        with pytest.raises(Foreign, match="names another file"):
            SQLEngine(left / "lab.sqlite", mode)
    assert thesis.read_text() == "chapter 1"


@pytest.mark.parametrize("option", ["read_timeout=soon", "no_such_option=1"])
def test_an_option_that_a_driver_does_not_take(option):
    with pytest.raises(EngineError, match="does not take"):
        open_store(f"mariadb+pymysql://ann:geheim@127.0.0.1:1/d?{option}")
