"""A ring in a mapped file: other processes follow it, with exact accounts, and notice when it dies."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from rings import SPEC, block, check, expand, law

from datastore_lab import dtypes
from datastore_lab.acquire import RingBuffer, RingReader
from datastore_lab.acquire.shared import JUMPS
from datastore_lab.errors import (
    AlreadyExists,
    Corrupt,
    EngineError,
    Foreign,
    Locked,
    Newer,
    Overrun,
    RunAborted,
    StreamError,
)
from datastore_lab.records import ArrayInfo, Stat

HERE = os.path.dirname(__file__)  # noqa: PTH120


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ring"


@pytest.fixture
def ring(path):
    made = RingBuffer(SPEC, samples=20, path=path)
    yield made
    made.close()


@pytest.fixture
def reader(ring, path):
    with RingReader(path) as made:
        yield made


def test_a_reader_sees_what_the_ring_holds(ring, reader):
    cursor = reader.cursor()
    ring.push(block(0, 5))
    ring.push(block(8, 12))
    assert (reader.spec, reader.samples, reader.pushed, reader.produced) == (SPEC, 20, 17, 20)
    assert check(cursor.read(3)) == [0, 1, 2]
    with cursor.view() as view:
        assert check(view.copy()) == [3, 4]
    assert check(cursor.read()) == list(range(8, 20))
    assert cursor.device_gaps == reader.device_gaps == [[5, 7]]
    law(cursor)
    assert [check(got) for got in reader.recent(95)] == [list(range(10, 20))]
    assert check(reader.latest(4)) == [16, 17, 18, 19]
    assert reader.alive
    assert not reader.closed
    ring.close()
    assert reader.closed
    assert cursor.read(timeout=None) is None


def test_whoever_is_too_slow_loses_by_name(ring, reader):
    cursor = reader.cursor()
    ring.push(block(3, 10))
    ring.push(block(20, 30))
    law(cursor)
    assert check(cursor.read()) == list(range(30, 50))
    assert expand(cursor.gaps) == [*range(3, 13), *range(20, 30)]
    with pytest.raises(Overrun), cursor.view():  # an empty view can't be looked at
        cursor.view().check()
    ring.push(block(50, 10))
    with pytest.raises(Overrun, match="overwritten"), cursor.view():
        ring.push(block(60, 20))
    assert check(cursor.read()) == list(range(60, 80))
    assert cursor.gaps[-1] == [50, 59]


def test_more_jumps_than_the_file_remembers(ring, reader):
    cursor = reader.cursor()
    ring.push(block(0, 3))
    assert check(cursor.read()) == [0, 1, 2]
    for first in range(10, 10 + 2 * (JUMPS + 50), 2):
        ring.push(block(first, 1))
    counts = cursor.counts
    assert counts.pushed == counts.delivered + counts.lost + counts.pending
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
    assert seen == list(range(seen[0], first + 1, 2))
    assert len(seen) == 20
    missing = set(range(10, first + 1, 2)) - set(seen)
    assert missing <= {n for a, b in cursor.gaps for n in range(a, b + 1)}
    with RingReader(reader._path) as late:
        assert check(late.latest(1)) == [first]


FOLLOW = """
import sys
sys.path.insert(0, sys.argv[2])
from rings import check, expand
from datastore_lab.acquire import RingReader
from datastore_lab.errors import Overrun
reader = RingReader(sys.argv[1])
cursor, seen = reader.cursor(), []
print("ready", flush=True)
while True:
    counts = cursor.counts
    assert counts.pushed == counts.delivered + counts.lost + counts.pending
    if sys.argv[3] == "read":
        got = cursor.read(int(sys.argv[4]), timeout=0.5)
        numbers = check(got) if got is not None else []
    else:
        try:
            with cursor.view(int(sys.argv[4]), timeout=0.5) as view:
                numbers = check(view.copy()) if len(view) else []
        except Overrun:
            continue
    seen += numbers
    if not numbers and reader.closed and not cursor.lag:
        break
counts = cursor.counts
assert counts.pushed == counts.delivered + counts.lost and counts.delivered == len(seen)
print(len(seen), counts.lost, sorted(seen + expand(cursor.gaps)) == eval(sys.stdin.readline()))
"""


def test_several_processes_follow_one_ring(path):
    """Each value of each sample is checked; together with the ledger nothing is missing."""
    ring = RingBuffer(SPEC, samples=200, path=path)
    ways = [("read", 1000), ("read", 7), ("view", 50)]
    command = [sys.executable, "-c", FOLLOW, str(path), HERE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([*command, way, str(most)], **pipes) for way, most in ways]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        pushed, random = [], np.random.default_rng(0)
        for size, jump in random.integers((1, 0), (150, 3), (400, 2)).tolist():
            first = ring.produced + jump
            ring.push(block(first, size))
            pushed += range(first, first + size)
            if size % 7 == 0:
                time.sleep(0.001)
        ring.close()
        for child in children:
            out, err = child.communicate(f"{pushed!r}\n", timeout=60)
            assert child.returncode == 0, err
            delivered, lost, exact = out.split()
            assert (int(delivered) + int(lost), exact) == (len(pushed), "True")
            assert int(delivered) > 0
    finally:
        for child in children:
            child.kill()
            child.communicate()


PRODUCE = """
import sys, time
sys.path.insert(0, sys.argv[2])
from rings import SPEC, block
from datastore_lab.acquire import RingBuffer
ring = RingBuffer(SPEC, samples=100, path=sys.argv[1])
ring.push(block(0, 10))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("waiting", [False, True])
def test_readers_notice_that_the_producer_died(path, waiting):
    command = [sys.executable, "-c", PRODUCE, str(path), HERE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        with RingReader(path) as reader:
            assert reader.alive
            assert reader.pid == child.pid
            with pytest.raises(Locked, match=f"process {child.pid} fills the ring"):
                RingBuffer(SPEC, samples=20, path=path)
            cursor, outcome = reader.cursor(), []

            def wait():
                try:
                    outcome.append(cursor.read(timeout=None))
                except StreamError as error:
                    outcome.append(error)

            thread = threading.Thread(target=wait)
            if waiting:
                thread.start()
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            if not waiting:
                time.sleep(0.25)
                thread.start()
            thread.join(20)
            [error] = outcome
            assert isinstance(error, RunAborted)
            assert f"the process {child.pid}" in str(error)
            assert not reader.alive
            assert reader.closed
            assert check(reader.latest(3)) == [7, 8, 9]
            with pytest.raises(RunAborted):
                cursor.read()
            ring = RingBuffer(SPEC, samples=20, path=path)  # takes the place of the dead one
            assert check(reader.latest(3)) == [7, 8, 9]
            ring.close()
            RingBuffer(SPEC, samples=20, path=path).close()  # and of one that ended


def damage(path, at, new):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(new)] = new
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "error", "why"),
    [
        (lambda p: p.write_bytes(b""), Foreign, "no ring"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n" * 5000), Foreign, "no ring"),
        (lambda p: p.write_bytes(p.read_bytes()[:20]), Corrupt, "cut short"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), Corrupt, "bytes and should have"),
        (lambda p: p.write_bytes(p.read_bytes() + b"0"), Corrupt, "bytes and should have"),
        (lambda p: damage(p, 8, struct.pack("<I", 0)), Foreign, "another version"),
        (lambda p: damage(p, 8, struct.pack("<I", 99)), Newer, "another version"),
        (lambda p: damage(p, 24, struct.pack("<Q", 10**6)), Corrupt, "damaged"),
        (lambda p: damage(p, 70, b"?"), Corrupt, "damaged"),
        (lambda p: p.unlink(), EngineError, "can't be opened"),
    ],
)
def test_other_files_are_refused(path, spoil, error, why):
    RingBuffer(SPEC, samples=20, path=path).close()
    spoil(path)
    with pytest.raises(error, match=why):
        RingReader(path)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(ring, reader, path):
    ring.push(block(0, 3))
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(Corrupt, match="was cut or changed"):
        reader.latest(1)


def test_a_ring_takes_no_place_that_is_taken(path, ring):
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        RingBuffer(SPEC, samples=20, path=path)
    other = path.with_name("notes.txt")
    other.write_text("notes")
    with pytest.raises(AlreadyExists, match="no ring"):
        RingBuffer(SPEC, samples=20, path=other)
    assert other.read_text() == "notes"
    with pytest.raises(EngineError, match="can't be made"):
        RingBuffer(SPEC, samples=20, path=path / "below")
    text = Stat("stream", {"note": ArrayInfo(dtypes.STRING, (0,), ("time",), 0, None)}, {"rate": None})
    with pytest.raises(ValueError, match="'note' is text of any length"):
        RingBuffer(text, samples=4, path=path)
    assert sorted(place.name for place in path.parent.iterdir()) == ["notes.txt", "ring"]


def test_a_disk_too_full_for_the_ring_is_an_error_and_leaves_nothing(path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EngineError, match="No space left"):
        RingBuffer(SPEC, samples=20, path=path)
    assert list(path.parent.iterdir()) == []


def test_a_ring_where_the_system_cannot_reserve_space(path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    ring = RingBuffer(SPEC, samples=200_000, path=path)
    ring.push(block(0, 150_000))
    with RingReader(path) as reader:
        assert check(reader.latest(10)) == list(range(149_990, 150_000))
    assert path.stat().st_blocks * 512 >= ring.nbytes
    ring.close()


def test_the_policies_work_in_a_file_as_in_memory(ring):
    cursor = ring.cursor("grow")
    for _ in range(10):
        ring.push(block(ring.produced, 17))
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
    assert seen == list(range(170))


def test_a_reader_that_left_says_so(ring, reader):
    cursor = reader.cursor()
    reader.close()
    reader.close()
    with pytest.raises(RunAborted, match="was closed"):
        cursor.read()
    assert f"process {os.getpid()}" in repr(reader)
