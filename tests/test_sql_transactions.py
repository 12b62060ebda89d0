"""What goes wrong inside a transaction: all of it is undone, or nothing of a refused change is done."""

import contextlib
import os
import signal
import tracemalloc

import numpy as np
import pytest
import servers

from datastore_lab.engines.sql import SQLEngine, lookup, nodes, outgoing
from datastore_lab.errors import BadKey, EngineError, NotStorable
from datastore_lab.records import ArrayInfo, Record, Stat

TEXT = np.dtypes.StringDType()


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


def nested(levels):
    value = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_attributes_may_be_nested_as_deep_as_json_is_taken(engine):
    """A change that was accepted can't fail later, and take others with it."""
    deepest = nested(100)
    with engine.transaction():
        engine.write(("before",), record(v=[1]))
        engine.write(("deep",), Record("value", {}, deepest, {}))
        assert engine.stat(("before",)).kind == "array"
        with pytest.raises(NotStorable):
            engine.write(("deeper",), Record("value", {}, nested(101), {}))
    assert list(engine.keys()) == [("before",), ("deep",)]
    assert engine.stat(("deep",)).meta == deepest
    assert list(engine.verify()) == []


def test_a_stream_is_flushed_again_and_again_in_one_transaction(engine):
    spec = {"v": ArrayInfo("<i8", (0,), ("t",), 0, None), "t": ArrayInfo("T", (0,), ("t",), 0, None)}
    stream = engine.append(("s",), Stat("stream", spec, {}))
    for _ in range(2):
        with engine.transaction():
            for turn in range(3):
                stream.extend({"v": np.array([turn]), "t": np.array([f"µ{turn}"], TEXT)})
                stream.flush()
    stream.close({})
    assert engine.read(("s",), "v").tolist() == [0, 1, 2] * 2
    assert engine.read(("s",), "t").tolist() == ["µ0", "µ1", "µ2"] * 2
    assert list(engine.verify()) == []


@pytest.mark.parametrize("how", ["raised", "ctrl-c"])
def test_a_change_that_was_interrupted_is_whole_or_undone(engine, how, monkeypatch):
    """Also where the caller goes on after Ctrl-C, as one does at the end of a measurement."""
    made, calls = outgoing.part_row, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            if how == "raised":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)
        return made(*args)

    monkeypatch.setattr(outgoing, "part_row", interrupted)
    held_back = engine._database.is_sqlite and how == "ctrl-c"
    refused = contextlib.nullcontext() if held_back else pytest.raises(EngineError, match="undone")
    with refused, engine.transaction():
        engine.write(("first",), record(v=[1]))
        with pytest.raises(KeyboardInterrupt):
            engine.write(("second",), record(v=[1], w=[2]))
    assert list(engine.keys()) == ([("first",), ("second",)] if held_back else [])
    if held_back:
        assert engine.read(("second",), "w").tolist() == [2]
    assert list(engine.verify()) == []


def test_a_change_that_fails_half_way_takes_its_transaction_with_it(engine, monkeypatch):
    monkeypatch.setattr(outgoing, "part_row", lambda *_: 1 / 0)
    with pytest.raises(EngineError, match="undone"), engine.transaction():  # noqa: PT012
        engine.update((), {"n": 1})
        with pytest.raises(ZeroDivisionError):
            engine.write(("a",), record(v=[1]))
    assert engine.stat(()).meta == {}
    assert list(engine.keys()) == []


def test_a_question_that_was_refused_leaves_a_transaction_as_it_is(engine):
    with engine.transaction():
        engine.write(("a",), record(v=[1]))
        with pytest.raises(IndexError):
            engine.read(("a",), "v", (7,))
    assert engine.read(("a",), "v").tolist() == [1]


def test_attributes_that_could_not_be_read_are_not_written(engine, monkeypatch):
    for module in (nodes, lookup):
        monkeypatch.setattr(module, "LONGEST", 4000)
    engine.write(("a",), Record("value", {}, {"text": "x" * 1900}, {}))
    with engine.transaction():
        engine.write(("b",), record(v=[1]))
        with pytest.raises(NotStorable, match="attributes"):
            engine.write(("c",), Record("value", {}, {"text": "µ" * 1900}, {}))
        with pytest.raises(NotStorable, match="attributes"):
            engine.update(("a",), {"more": "y" * 200})
    assert list(engine.keys()) == [("a",), ("b",)]
    assert engine.stat(("a",)).meta == {"text": "x" * 1900}
    assert list(engine.verify()) == []


@pytest.mark.parametrize("change", ["write", "update"])
def test_a_transaction_of_large_attributes_takes_bounded_memory(tmp_path, change):
    engine = SQLEngine(tmp_path / "lab.sqlite", "w", durability="process")
    texts = [os.urandom(250_000).hex() for _ in range(4)]
    tracemalloc.start()
    with engine.transaction():
        for number in range(200):
            meta = {"text": f"{number} {texts[number % 4]}"}
            if change == "update":
                engine.write((f"{number}",), record(v=[1]))
                engine.update((f"{number}",), meta)
            else:
                engine.write((f"{number}",), Record("value", {}, meta, {}))
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()
    for number in (0, 199):
        assert engine.stat((f"{number}",)).meta["text"] == f"{number} {texts[number % 4]}"
    assert list(engine.verify()) == []
    engine.close()


@pytest.mark.parametrize(
    "bad",
    [
        Record("kind\ud800", {}, {}, {}),
        Record("array", {"v\ud800": np.zeros(2)}, {}, {}),
        Record("array", {"v": np.zeros(2)}, {}, {"v": ("dim\ud800",)}),
    ],
    ids=["kind", "array", "dimension"],
)
def test_a_name_that_is_no_text_spoils_no_transaction(engine, bad):
    with engine.transaction():
        engine.write(("good",), record(v=[1]))
        with pytest.raises(BadKey, match="surrogate"):
            engine.write(("bad",), bad)
    assert list(engine.keys()) == [("good",)]
    assert list(engine.verify()) == []
