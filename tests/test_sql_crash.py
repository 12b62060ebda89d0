"""Databases and their clients that are killed: what was acknowledged is there, and nothing else is."""

import random
import signal
import subprocess
import sys
import time

import pytest
import servers

from datastore_lab.engines.sql import SQLEngine

RUNS = 300

_WRITER = """
import sys
import numpy as np
from datastore_lab.engines.sql import SQLEngine
from datastore_lab.errors import LabError
from datastore_lab.records import Record
engine, run = SQLEngine(sys.argv[1], "a"), sys.argv[2]
def put(turn, part):
    values = np.arange(2000) + 7 * turn + part
    engine.write((run, f"{turn}", f"{part}"), Record("array", {"v": values}, {"turn": turn}, {}))
try:
    for turn in range(1_000_000):
        with engine.transaction():
            put(turn, 0)
            put(turn, 1)
            if turn:
                engine.move((run, f"{turn - 1}"), (run, "old", f"{turn - 1}"))
            if turn > 4:
                engine.delete((run, "old", f"{turn - 5}"))
        print(turn, flush=True)
except LabError:
    pass  # the server is gone
"""


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
    command = [sys.executable, "-c", _WRITER, own.url, f"run {run}"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    seen = [int(writer.stdout.readline())]
    time.sleep(draw.random() * 0.3)
    if run % 3 == 2:
        writer.send_signal(signal.SIGKILL)
        seen += map(int, writer.stdout.read().split("\n")[:-1])
        writer.wait(60)
    else:
        own.kill()
        seen += map(int, writer.stdout.read().split("\n")[:-1])
        writer.wait(60)
        own.start()
    writer.stdout.close()
    return seen[-1]


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
