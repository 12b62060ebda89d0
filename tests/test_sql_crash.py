"""Databases and their clients that are killed: what was acknowledged is there, and nothing else is."""

import contextlib
import itertools
import random
import time

import numpy as np
import pytest
import servers

from datastore_lab.engines.sql import SQLEngine
from datastore_lab.errors import LabError
from datastore_lab.records import Record
from datastore_lab.testing.processes import CONTEXT

RUNS = 300


def work(pipe, url, run):
    """Write pairs of records, move them and delete them, each turn in one transaction, and tell of each."""
    engine = SQLEngine(url, "a")

    def put(turn, part):
        values = np.arange(2000) + 7 * turn + part
        engine.write((run, f"{turn}", f"{part}"), Record("array", {"v": values}, {"turn": turn}, {}))

    with contextlib.suppress(LabError):  # the server is gone
        for turn in itertools.count():
            with engine.transaction():
                put(turn, 0)
                put(turn, 1)
                if turn:
                    engine.move((run, f"{turn - 1}"), (run, "old", f"{turn - 1}"))
                if turn > 4:
                    engine.delete((run, "old", f"{turn - 5}"))
            pipe.send(turn)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", servers.SERVERS)
def test_a_killed_server_keeps_what_it_acknowledged(name, faults):
    """Server or client ended at once, at any moment of writing: a transaction is there, or it is not."""
    runs, draw = faults.times(RUNS), random.Random(5)
    with servers.private(name) as own:
        for run in range(runs):
            acknowledged = _interrupted(own, run, draw)
            engine = SQLEngine(own.url, "a")
            _check(engine, f"run {run}", acknowledged)
            if run % 20 == 0:
                assert list(engine.verify()) == []
            engine.delete((f"run {run}",)) if acknowledged >= 0 else None
            engine.close()
    faults.tried(name, "server or client killed under load", runs)


def _interrupted(own, run, draw):
    """Let a writer work, end it or the server, and give the last turn that it was told is done."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    writer = CONTEXT.Process(target=work, args=(theirs, own.url, f"run {run}"))
    writer.start()
    theirs.close()
    last = ours.recv()
    time.sleep(draw.random() * 0.15)
    if run % 3 == 2:
        writer.kill()
    else:
        own.kill()
    with contextlib.suppress(EOFError):
        while True:
            last = ours.recv()
    writer.join(60)
    ours.close()
    if run % 3 != 2:
        own.start()
    return last


def _check(engine, run, acknowledged):
    turns = [key[-2:] for key in engine.keys((run,))]
    numbers = sorted({int(turn) for turn, _ in turns})
    last = numbers[-1]
    assert last in {acknowledged, acknowledged + 1}  # the one under way may have been committed
    assert numbers == list(range(max(0, last - 4), last + 1))
    assert sorted(turns) == sorted((str(turn), part) for turn in numbers for part in "01")
    for turn in numbers:
        above = (run,) if turn == last else (run, "old")
        for part in range(2):
            key = (*above, str(turn), str(part))
            assert engine.stat(key).meta == {"turn": turn}
            assert engine.read(key, "v").tolist() == [7 * turn + part + step for step in range(2000)]
