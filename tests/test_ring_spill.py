"""Spilling to disk: read back in order, whole after a crash, and honest about a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from rings import SAMPLE, SPEC, block, check, expand, law

from datastore_lab import dtypes
from datastore_lab.acquire import RingBuffer, Spilled
from datastore_lab.errors import Corrupt, EngineError, Foreign, Newer
from datastore_lab.records import ArrayInfo, Block, Stat


def read_all(cursor, most=None):
    seen = []
    while (got := cursor.read(most)) is not None:
        seen += check(got)
        law(cursor)
    return seen


@pytest.fixture
def ring():
    return RingBuffer(SPEC, samples=16)


def fill(ring, blocks, size=5):
    for _ in range(blocks):
        ring.push(block(ring.produced, size))


def test_everything_comes_back_in_order(ring, tmp_path):
    cursor = ring.cursor("spill", folder=tmp_path / "new")
    fill(ring, 40)
    assert cursor.lag == 200
    [file] = (tmp_path / "new").iterdir()
    assert file.stat().st_size > 180 * SAMPLE
    assert check(cursor.read(7)) == list(range(4))  # a frame holds a quarter of the ring
    fill(ring, 2)
    assert read_all(cursor, 7) == list(range(4, 210))
    assert cursor.lost == 0
    fill(ring, 8)  # everything was read: the space is used again
    assert file.stat().st_size < 100 * SAMPLE
    cursor.close()
    assert not file.exists()


def test_jumps_and_the_device_clock_are_kept(tmp_path):
    ring = RingBuffer(SPEC._replace(meta={"rate": 1.0, "device_time": True}), samples=10)
    cursor = ring.cursor("spill", folder=tmp_path)
    pushed = []
    for first in range(0, 200, 8):
        ring.push(block(first, 5)._replace(device_time=np.arange(first, first + 5) * 3))
        pushed += range(first, first + 5)
    [file] = tmp_path.iterdir()
    spilled = Spilled(file)
    assert spilled.spec == ring.spec
    kept = [n for got in spilled for n in check(got)]
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
        assert got.device_time.tolist() == [3 * n for n in range(got.first, got.first + len(got.time))]
    assert seen == pushed
    assert pushed[: len(kept)] == kept


@pytest.mark.parametrize("cut", [1, 20, 60, 200])
def test_a_torn_tail_costs_what_was_torn_and_no_more(ring, tmp_path, cut):
    ring.cursor("spill", folder=tmp_path)
    fill(ring, 40)
    [file] = tmp_path.iterdir()
    whole = [n for got in Spilled(file) for n in check(got)]
    copy = tmp_path / "copy"
    copy.write_bytes(file.read_bytes()[:-cut])
    spilled = Spilled(copy)
    found = [n for got in spilled for n in check(got)]
    assert found == whole[: len(found)]
    assert len(whole) - 12 <= len(found) < len(whole)
    assert spilled.torn == copy.stat().st_size - file.stat().st_size + cut + spilled.torn
    assert spilled.torn > 0


@pytest.mark.parametrize("damage", ["payload", "head"])
def test_a_damaged_frame_is_lost_and_named_and_the_others_are_read(ring, tmp_path, damage):
    cursor = ring.cursor("spill", folder=tmp_path)
    fill(ring, 40)
    [file] = tmp_path.iterdir()
    frames = cursor._backlog._frames
    at = frames[5].offset + {"payload": 100, "head": 9}[damage]
    with file.open("r+b") as raw:
        raw.seek(at)
        byte = raw.read(1)[0]
        raw.seek(at)
        raw.write(bytes([byte ^ 4]))
    lost = list(range(frames[5].first, frames[5].first + frames[5].samples))
    seen = []
    for _ in range(5):
        seen += check(cursor.read())
    with pytest.raises(Corrupt, match=f"samples {lost[0]} to {lost[-1]} .*checksum"):
        cursor.read()
    law(cursor)
    seen += read_all(cursor)
    assert expand(cursor.gaps) == lost
    assert sorted(seen + lost) == list(range(200))


def test_beyond_its_limit_what_comes_is_lost_and_said_once(ring, tmp_path):
    cursor = ring.cursor("spill", folder=tmp_path, limit=1500)
    fill(ring, 40)
    [file] = tmp_path.iterdir()
    assert file.stat().st_size <= 1500
    law(cursor)
    lost = expand(cursor.gaps)
    assert lost
    with pytest.raises(EngineError, match=r"are lost: it may have 1500 bytes; make space"):
        cursor.read()
    seen = read_all(cursor)
    assert seen == sorted(seen)
    assert sorted(seen + lost) == list(range(200))
    fill(ring, 1)
    assert read_all(cursor) == list(range(200, 205))


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from rings import SPEC, block, expand
from datastore_lab.acquire import RingBuffer
from datastore_lab.errors import EngineError
ring = RingBuffer(SPEC, samples=16)
cursor = ring.cursor("spill", folder=sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for first in range(0, 400, 4):
    ring.push(block(first, 4))
lost, seen, said = expand(cursor.gaps), [], ""
while cursor.lag:
    try:
        got = cursor.read()
    except EngineError as error:
        said = str(error)
        continue
    seen += range(got.first, got.first + len(got.time))
assert sorted(seen + lost) == list(range(400)), (seen, lost)
print(len(lost) > 0, said)
"""


def test_a_full_disk_is_said_and_counted_as_lost(tmp_path):
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", FULL, str(tmp_path), here]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True the samples")
    assert "can't be written: File too large" in done.stdout


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from rings import SPEC, block
from datastore_lab.acquire import RingBuffer
ring = RingBuffer(SPEC, samples=1000)
cursor = ring.cursor("spill", folder=sys.argv[1])
first = 0
while True:
    ring.push(block(first, 300))
    first += 300
    print(first - 1000, flush=True)
"""


def test_after_a_kill_the_file_holds_what_was_spilled(tmp_path):
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-c", KILLED, str(tmp_path), here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        least = 0
        while least < 50_000:
            least = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
    [file] = tmp_path.iterdir()
    found = [n for got in Spilled(file) for n in check(got)]
    assert found == list(range(len(found)))
    assert len(found) >= least


def test_other_files_are_refused(ring, tmp_path):
    ring.cursor("spill", folder=tmp_path)
    [file] = tmp_path.iterdir()
    raw = file.read_bytes()
    other = tmp_path / "other"
    for content, error, why in [
        (b"", Foreign, "no spill file"),
        (b"\x89HDF" * 100, Foreign, "no spill file"),
        (raw[:8] + b"\x09" + raw[9:], Newer, "later version"),
        (raw[:40] + b"?" + raw[41:], Corrupt, "damaged"),
        (raw[:60], Corrupt, "damaged"),
    ]:
        other.write_bytes(content)
        with pytest.raises(error, match=why):
            Spilled(other)


def test_what_cannot_spill_is_refused_at_once(tmp_path):
    text = Stat("stream", {"note": ArrayInfo(dtypes.STRING, (0,), ("time",), 0, None)}, {"rate": None})
    ring = RingBuffer(text, samples=4)
    with pytest.raises(ValueError, match="'note' is text of any length"):
        ring.cursor("spill", folder=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="no file can be made"):
        RingBuffer(SPEC, samples=4).cursor("spill", folder=tmp_path / "file" / "below")
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


def test_large_samples_go_into_frames_of_bounded_size(tmp_path):
    spec = Stat("stream", {"frame": ArrayInfo("|u1", (0, 1000, 1000), ("time", "y", "x"), 0, None)}, {})
    ring = RingBuffer(spec, samples=4)
    cursor = ring.cursor("spill", folder=tmp_path)
    for number in range(8):
        ring.push(Block(number, np.array([number]), {"frame": np.full((1, 1000, 1000), number, "u1")}))
    assert [int(cursor.read(1).data["frame"].max()) for _ in range(8)] == list(range(8))
    assert cursor.read() is None


def test_closing_while_a_frame_is_written_or_read_touches_no_other_file(ring, tmp_path, monkeypatch):
    """A handle that is closed too early would be that of the next file that is opened."""
    other, cursors = [], []

    def meanwhile():
        if cursors:
            cursors.pop().close()
            other.append(os.open(tmp_path / f"other{len(other)}", os.O_RDWR | os.O_CREAT))

    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda *args: meanwhile() or write(*args))
    monkeypatch.setattr(os, "preadv", lambda *args: meanwhile() or read(*args))
    writing = ring.cursor("spill", folder=tmp_path)
    cursors.append(writing)
    fill(ring, 10)
    assert writing.closed
    reading = ring.cursor("spill", folder=tmp_path)
    fill(ring, 10)
    cursors.append(reading)
    assert check(reading.read()) == list(range(50, 54))
    assert reading.closed
    for handle in other:
        assert os.fstat(handle).st_size == 0
        os.close(handle)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["other0", "other1"]


def test_a_disk_that_fails_to_read_is_said_and_counted_as_lost(ring, tmp_path, monkeypatch):
    cursor = ring.cursor("spill", folder=tmp_path)
    fill(ring, 20)

    def fail(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(EngineError, match="can't be read: Input/output error"):
        cursor.read()
    monkeypatch.undo()
    law(cursor)
    assert sorted(read_all(cursor) + expand(cursor.gaps)) == list(range(100))
    assert cursor.gaps == [[0, 3]]
