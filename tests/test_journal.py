"""The rollback journal: locks, rollbacks, readers beside a writer, and a disk that refuses."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import h5py
import numpy as np
import pytest

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.errors import EngineError, Locked
from datastore_lab.records import Record
from datastore_lab.testing import crash


def record(value, size=4):
    return Record("array", {"data": np.full(size, value)}, {"value": value}, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


def start(code, *arguments):
    """Run Python in another process, which says on its output when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process):
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


HOLD = """
    import sys
    from datastore_lab.engines.hdf5 import HDF5Engine
    engine = HDF5Engine(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_second_writer_is_told_who_holds_the_store(path):
    engine = HDF5Engine(path)
    with pytest.raises(Locked, match=str(os.getpid())):
        HDF5Engine(path, "r+")
    engine.close()
    HDF5Engine(path, "r+").close()


def test_lock_of_another_process_dies_with_it(path):
    process = start(HOLD, path)
    with pytest.raises(Locked, match=str(process.pid)):
        HDF5Engine(path)
    process.send_signal(signal.SIGKILL)
    finish(process)
    HDF5Engine(path).close()


def test_journal_is_there_only_while_a_writer_is(path, tmp_path):
    engine = HDF5Engine(path)
    assert {file.name for file in tmp_path.iterdir()} == {"store.h5", "store.h5-journal"}
    engine.close()
    assert [file.name for file in tmp_path.iterdir()] == ["store.h5"]


def test_refused_mode_w_leaves_the_file_of_the_holder(path):
    engine = HDF5Engine(path)
    engine.write(("a",), record(1))
    before = path.read_bytes()
    with pytest.raises(Locked):
        HDF5Engine(path, "w")
    assert path.read_bytes() == before
    engine.close()


def test_reader_sees_the_last_commit_through_a_hot_journal(path, tmp_path):
    disk = crash.RecordingDisk()
    engine = HDF5Engine(path, disk=disk)
    engine.write(("a",), record(1))
    disk.mark("done", 1)
    engine.write(("b",), record(2))
    overwritten = last_write_of(disk.events, "store.h5")
    engine.close()
    state = next(s for s in crash.states(disk.events) if s.after > overwritten)
    crash.put(state.files, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    reader = HDF5Engine(path, "r")
    assert list(reader.keys()) == [("a",)]
    reader.close()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    HDF5Engine(path).close()
    with h5py.File(path) as file:
        assert list(file) == ["a"]


def last_write_of(events, name):
    return max(index for index, event in enumerate(events) if (event.kind, event.name) == ("write", name))


def test_reader_never_sees_half_a_commit(path):
    writer, reader = HDF5Engine(path), None
    writer.write(("left",), record(0))
    writer.write(("right",), record(0))
    reader = HDF5Engine(path, "r")
    stop, revisions = threading.Event(), []

    def write():
        value = 0
        while not stop.is_set():
            value += 1
            with writer.transaction():
                writer.write(("left",), record(value, 1000))
                writer.write(("right",), record(value, 1000))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(set(revisions)) < 40:
            pair = reader._look((), lambda root: both(reader, root))
            assert pair[0] == pair[1]
            revisions.append(reader.revision())
    finally:
        stop.set()
        thread.join()
    assert revisions == sorted(revisions)
    last = reader.revision()
    assert last == reader.revision() >= writer.revision()  # (more, by looks into the middle of commits)
    newcomer = HDF5Engine(path, "r")
    assert newcomer.revision() == writer.revision()
    newcomer.close()
    writer.write(("left",), record(-1))
    assert reader.revision() > last
    writer.close()
    reader.close()


def both(reader, root):
    return [
        (reader._describe(root, key).stat.meta, set(reader._read(root, key, "data", ())))
        for key in (("left",), ("right",))
    ]


def test_reader_follows_a_store_that_was_replaced(path):
    HDF5Engine(path).close()
    reader = HDF5Engine(path, "r")
    before = reader.revision()
    writer = HDF5Engine(path, "w")
    writer.write(("new",), record(1))
    writer.close()
    assert list(reader.keys()) == [("new",)]
    assert reader.revision() > before
    reader.close()


def change(engine):
    with engine.transaction():
        engine.write(("new", "item"), record(7, 3000))
        engine.delete(("old",))
        engine.update(("kept",), {"note": "n" * 5000})


def prepare(path, disk):
    engine = HDF5Engine(path, disk=disk)
    engine.write(("old",), record(1, 2000))
    engine.write(("kept",), record(2))
    return engine


def attempt(engine):
    try:
        change(engine)
    except EngineError as error:
        return error
    return None


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_disk_that_refuses_any_change_leaves_all_as_it_was(path, code, forever):
    for at in range(10_000):
        path.unlink(missing_ok=True)
        disk = crash.FailingDisk(at, code, forever=forever)
        engine = prepare(path, disk)
        before = crash.digest(engine)
        disk.arm()
        failure = attempt(engine)
        if not disk.failed:
            break
        assert failure is None or os.strerror(code) in str(failure)
        found = crash.digest(engine)
        disk.arm(on=False)
        engine.close()
        again = HDF5Engine(path)
        assert crash.digest(again) == found
        assert (found == before) == (failure is not None)
        again.close()
    assert at > 10
    engine.close()


def test_engine_works_on_after_a_full_disk(path):
    disk = crash.FailingDisk(1, errno.ENOSPC, forever=True)
    engine = prepare(path, disk)
    disk.arm()
    with pytest.raises(EngineError, match="No space left"):
        change(engine)
    disk.arm(on=False)
    change(engine)
    assert list(engine.keys()) == [("kept",), ("new", "item")]
    engine.close()


def test_interrupt_inside_a_write_leaves_all_as_it_was(path):
    class Interrupted(crash.FailingDisk):
        def _refuse(self, half=None):
            try:
                super()._refuse()
            except OSError:
                raise KeyboardInterrupt from None

    disk = Interrupted(2, errno.EIO, forever=False)
    engine = prepare(path, disk)
    before = crash.digest(engine)
    disk.arm()
    with pytest.raises(KeyboardInterrupt):
        change(engine)
    assert crash.digest(engine) == before
    change(engine)
    engine.close()


def test_large_rewrite_of_committed_space_can_be_undone(path):
    engine = HDF5Engine(path)
    engine.write(("big",), Record("array", {"data": np.arange(2_000_000)}, {}, {}))
    engine.write(("last",), record(1))
    before = crash.digest(engine)
    with pytest.raises(ZeroDivisionError):
        rewrite_and_fail(engine)
    assert crash.digest(engine) == before
    assert list(engine.verify()) == []
    engine.close()


def rewrite_and_fail(engine):
    with engine.transaction():
        engine.delete(("big",))
        for number in range(3):
            engine.write((f"other {number}",), Record("array", {"data": np.zeros(900_000)}, {}, {}))
        raise ZeroDivisionError


def test_child_after_a_fork_can_neither_write_nor_keep_the_lock(path):
    engine = HDF5Engine(path)
    child = os.fork()
    if not child:
        try:
            engine.write(("a",), record(1))
        except EngineError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    engine.write(("a",), record(1))
    engine.close()


RESTLESS = """
    import sys, threading
    import numpy as np
    from datastore_lab.engines.hdf5 import HDF5Engine
    from datastore_lab.records import Record
    engine = HDF5Engine(sys.argv[1])
    engine.write(("big",), Record("array", {"data": np.arange(10_000_000)}, {}, {}))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
    print("ready", flush=True)
    number = 0
    while not ended.is_set():
        number += 1
        engine.write(("small",), Record("array", {"data": np.arange(5)}, {"number": number}, {}))
    engine.close()
"""


def test_long_read_beside_a_writer_that_never_rests_soon_comes_to_an_end(path):
    process = start(RESTLESS, path)
    reader, tries = HDF5Engine(path, "r"), []

    def read_all(root):
        tries[-1] += 1
        return reader._read(root, ("big",), "data", ())

    try:
        for _ in range(8):
            tries.append(0)
            assert reader._look((), read_all)[-1] == 9_999_999
    finally:
        finish(process)
    assert process.returncode == 0
    assert max(tries) <= 6
    reader.close()
