"""Many processes and threads change one store: as if one had done it all, one change after the other."""

import contextlib
import hashlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
import servers
import sqlalchemy as sa
from engines import WHOLE

from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.engines.sql import SQLEngine
from datastore_lab.records import Record
from datastore_lab.testing.processes import CONTEXT, all_well, judge_all
from datastore_lab.testing.workload import snapshot

WRITERS = 8
READERS = 2
PATIENCE = 120.0
OPEN_ALONG = {"sqlite", *servers.SERVERS}


class Served(NamedTuple):
    """A database server under test; a path stands for a store of its own there."""

    engine: str
    name: str = "store"

    @property
    def label(self):
        return {servers.POSTGRESQL: "PostgreSQL", servers.MARIADB: "MariaDB"}[self.engine]

    def url(self, path):
        lab = f"s{hashlib.sha256(str(path).encode()).hexdigest()[:24]}"
        url = sa.make_url(servers.server(self.engine)).update_query_dict({"lab": lab})
        return url.render_as_string(hide_password=False)

    def open(self, path, mode, **options):
        return SQLEngine(self.url(path), mode, **options)


SHARED = [*WHOLE, *map(Served, servers.SERVERS)]


@pytest.fixture
def home(case, scratch):
    """The folder of a test; what stands for it on a server is removed."""
    yield scratch
    if isinstance(case, Served):
        for name in (case.name, f"threads {case.name}"):
            servers.remove_store(case.url(scratch / name))


def begin(engine):
    """Write what every change needs."""
    with engine.transaction():
        engine.write(("log",), Record("array", {"who": np.zeros((2, 0), "i4")}, {}, {}))
        engine.write(("count",), Record("value", {}, {"n": 0}, {}))
        engine.write(("items", "0"), Record("array", {"data": np.zeros(3)}, {}, {}))


def act(engine, who, number):
    """Make one of several changes, count it and log it, all in one commit."""
    chance = random.Random(f"{who} {number}")
    with engine.transaction():
        there = sorted(engine.children(("items",)))
        kinds = ["write", "write", "update", *(["move", "delete"] if len(there) > 3 else [])]
        change(engine, chance, chance.choice(kinds), there, who * 100_000 + number)
        count = engine.stat(("count",)).meta["n"]
        engine.update(("count",), {"n": count + 1})
        log = engine.read(("log",), "who")
        more = np.full((2, 1), who * 100_000 + number, "i4")
        engine.write(("log",), Record("array", {"who": np.concatenate([log, more], axis=1)}, {}, {}))


def change(engine, chance, kind, there, stamp):
    old, new = ("items", chance.choice(there)), ("items", str(chance.randrange(12)))
    if kind == "write":
        engine.write(
            new, Record("array", {"data": np.full(chance.randrange(1, 400), stamp)}, {"by": stamp}, {})
        )
    elif kind == "update":
        engine.update(old, {"seen": stamp})
    elif kind == "delete":
        engine.delete(old)
    elif new[1] not in there:
        engine.move(old, new)


def check_serial(case, path, total):
    """Do what the log says once more, in its order and alone; it must come to the same."""
    engine, twin = case.open(path, "r"), MemoryEngine()
    log = engine.read(("log",), "who")[0].tolist()
    assert len(log) == len(set(log)) == engine.stat(("count",)).meta["n"] == total
    begin(twin)
    for stamp in log:
        act(twin, *divmod(stamp, 100_000))
    assert snapshot(engine) == snapshot(twin)
    assert list(engine.verify()) == []
    engine.close()


def role(case, path, count):
    """Give a judge of one process: a writer or a reader among others."""

    def play(part):
        kind, who = part
        if kind == "write":
            write(case, path, who, count)
            return None
        return read_along(case, path, WRITERS * count, reopen=bool(who))

    return play


def write(case, path, who, count):
    if case.engine in OPEN_ALONG:
        with contextlib.closing(case.open(path, "a", timeout=PATIENCE)) as engine:
            for number in range(count):
                act(engine, who, number)
        return
    for number in range(count):
        with contextlib.closing(case.open(path, "a", timeout=PATIENCE)) as engine:
            act(engine, who, number)


def read_along(case, path, total, *, reopen):
    """Read while others write; say what could not be."""
    engine, last, longest, rounds = case.open(path, "r"), np.zeros((2, 0), "i4"), 0.0, 0
    while last.shape[1] < total:
        began = time.monotonic()
        log = engine.read(("log",), "who")
        longest = max(longest, time.monotonic() - began)
        count = engine.stat(("count",)).meta["n"]
        if not (log[0] == log[1]).all():
            return "a torn log"
        if log.shape[1] < last.shape[1] or (log[:, : last.shape[1]] != last).any():
            return f"a log of {log.shape[1]} after one of {last.shape[1]}"
        if count < log.shape[1]:
            return f"a count of {count} with {log.shape[1]} in the log"
        last, rounds = log, rounds + 1
        if reopen and rounds % 20 == 0:
            engine.close()
            engine = case.open(path, "r")
        time.sleep(0.005)
    engine.close()
    return f"a reader waited for {longest:.1f} s" if longest > 10 else None


def share_among_processes(case, path, count):
    engine = case.open(path, "w")
    begin(engine)
    engine.close()
    parts = [("write", who) for who in range(WRITERS)] + [("read", who) for who in range(READERS)]
    limit = 60 + WRITERS * count * 0.2
    all_well(judge_all(role, (case, path, count), parts, workers=len(parts), seconds=limit))
    check_serial(case, path, WRITERS * count)


def share_among_threads(case, path, count):
    engine = case.open(path, "w")
    begin(engine)

    def work(who):
        for number in range(count):
            act(engine, who, number)

    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(work, who) for who in range(WRITERS)]:
            done.result(timeout=60 + WRITERS * count * 0.2)
    engine.close()
    check_serial(case, path, WRITERS * count)


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.engine)
def test_a_store_shared_among_processes(case, home):
    share_among_processes(case, home / case.name, 5)


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.engine)
def test_a_store_shared_among_threads(case, home):
    share_among_threads(case, home / case.name, 5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.engine)
def test_a_store_shared_for_long(case, home, faults):
    count = faults.times(500)
    share_among_processes(case, home / case.name, count)
    faults.tried(case.label, f"changes by {WRITERS} processes at once, with readers", WRITERS * count)
    share_among_threads(case, home / f"threads {case.name}", count)
    faults.tried(case.label, f"changes by {WRITERS} threads at once", WRITERS * count)


def hold_a_transaction(case, path, inside, leave):
    """Keep a change open in another process."""
    with contextlib.closing(case.open(path, "a")) as engine, engine.transaction():
        engine.update(("count",), {"n": 99})
        engine.delete(("items",))
        inside.set()
        leave.wait(60)


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.engine)
def test_an_open_transaction_keeps_no_reader_waiting(case, home):
    path = home / case.name
    engine = case.open(path, "w")
    begin(engine)
    engine.close()
    inside, leave = CONTEXT.Event(), CONTEXT.Event()
    child = CONTEXT.Process(target=hold_a_transaction, args=(case, path, inside, leave))
    child.start()
    assert inside.wait(60)
    try:
        with contextlib.closing(case.open(path, "r")) as reader:
            assert reader.stat(("count",)).meta["n"] == 0
            assert list(reader.children(("items",))) == ["0"]
            assert reader.read(("items", "0"), "data").tolist() == [0, 0, 0]
            leave.set()
            child.join(60)
            assert reader.stat(("count",)).meta["n"] == 99
            assert ("items", "0") not in list(reader.keys())
    finally:
        leave.set()
        child.join(60)
    assert child.exitcode == 0
