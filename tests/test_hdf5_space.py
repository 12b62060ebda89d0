"""What is mapped stays as it is, what is declared is not believed, and large stores answer at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.errors import BadKey, Corrupt, Foreign, LabError
from datastore_lab.keys import DEEPEST
from datastore_lab.records import Record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


def record(value, size=4):
    return Record("array", {"data": np.full(size, value)}, {}, {})


MAPPED = """
    import sys, h5py, numpy as np
    with h5py.File(sys.argv[1]) as file:
        views = [
            np.memmap(sys.argv[1], "i8", "r", dataset.id.get_offset(), dataset.shape)
            for dataset in (file["middle/data"], file["last/data"])
        ]
    print("ready", flush=True)
    sys.stdin.readline()
    print([(int(view.min()), int(view.max()), int(view.sum())) for view in views], flush=True)
"""


@pytest.mark.parametrize("reopen", [False, True])
def test_mapped_arrays_of_another_process_keep_their_bytes(path, reopen):
    engine = HDF5Engine(path)
    for number, name in enumerate(("first", "middle", "last")):
        engine.write((name,), record(number + 1, 50_000))
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MAPPED), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    engine.delete(("last",))
    with engine.transaction():
        engine.write(("middle",), record(9, 50_000))
        engine.write(("new",), record(9, 50_000))
    if reopen:
        engine.close()
        engine = HDF5Engine(path)
    for number in range(5):
        engine.write((f"more {number}",), record(9, 60_000))
    engine.delete(("first",))
    assert engine.compact() > 1_000_000
    engine.write(("after",), record(9, 100_000))
    found, _ = child.communicate("\n", timeout=60)
    assert found == f"{[(2, 2, 100_000), (3, 3, 150_000)]}\n"
    assert list(engine.verify()) == []
    engine.close()


def test_a_file_never_gets_shorter_below_what_was_written(path):
    engine = HDF5Engine(path)
    engine.write(("last",), record(1, 100_000))
    with h5py.File(path) as file:
        end = file["last/data"].id.get_offset() + 800_000
    engine.delete(("last",))
    assert path.stat().st_size >= end
    engine.write(("last",), record(2, 100_000))
    with h5py.File(path) as file:
        assert file["last/data"].id.get_offset() >= end
    engine.close()


def test_keys_are_as_deep_as_documented_and_no_deeper(path):
    engine = HDF5Engine(path)
    deep = ("k",) * DEEPEST
    engine.write(deep, record(1))
    assert list(engine.keys()) == [deep]
    assert list(engine.verify()) == []
    with pytest.raises(BadKey, match=str(DEEPEST)):
        engine.write((*deep, "k"), record(1))
    engine.close()


def test_a_file_that_is_nested_too_deeply_is_walked_as_far_as_keys_go(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        for _ in range(1500):
            group = group.create_group("a")
    engine = HDF5Engine(path, "r")
    assert list(engine.keys()) == []
    assert list(engine.children()) == ["a"]
    assert list(engine.verify()) == []
    engine.close()


def bomb(file):
    file.create_dataset("zeros", (1 << 40,), "u1", chunks=(1 << 20,), compression="gzip")
    file["zeros"][: 1 << 20] = 0
    file.create_dataset("wide", (2,), np.dtype(("V", 1 << 30)), chunks=(1,))
    file.create_dataset("nested", (1 << 20,), np.dtype(("f8", (1000, 1000))), chunks=(1,))


def test_a_small_file_that_declares_much_is_refused_before_memory_is_asked_for(path):
    with h5py.File(path, "w") as file:
        bomb(file)
    engine = HDF5Engine(path, "r")
    for name in engine.stat(()).arrays:
        with pytest.raises((Foreign, LabError), match=r"in parts|can't be read"):
            engine.read((), name)
    engine.close()


def test_an_array_of_ours_that_claims_to_be_longer_than_the_file(path):
    engine = HDF5Engine(path)
    engine.write(("a",), record(1, 5000))
    engine.close()
    with h5py.File(path, "r+") as file:
        attributes = dict(file["a"].attrs)
        del file["a/data"]
        dataset = file["a"].create_dataset("data", (1 << 40,), "i8", chunks=(1 << 10,))
        dataset[0] = 1
        file["a"].attrs.update(attributes)
    engine = HDF5Engine(path)
    list(engine.repair(accept=True))
    for selection in [(), (slice(0, 1 << 35),)]:
        with pytest.raises((Corrupt, Foreign)):
            engine.read(("a",), "data", selection)
    engine.close()


def test_a_large_store_tells_its_first_page_without_looking_at_the_rest(path):
    engine = HDF5Engine(path)
    with engine.transaction():
        for number in range(1500):
            engine.write((str(number),), Record("array", {}, {}, {}))
    engine.close()
    engine = HDF5Engine(path, "r")
    reads = count_reads(engine)
    assert engine.stat(()).kind == "group"
    names = engine.children()
    page = [next(names) for _ in range(200)]
    assert page == [str(number) for number in range(200)]
    few = reads()
    assert [*page, *names] == [str(number) for number in range(1500)]
    assert reads() > 4 * few
    engine.close()


def count_reads(engine):
    paged, calls = engine._reader.paged, []
    read = paged.readinto
    paged.readinto = lambda buffer: (calls.append(1), read(buffer))[1]
    return lambda: len(calls)


def test_children_can_change_while_they_are_listed(path):
    engine = HDF5Engine(path)
    with engine.transaction():
        for number in range(500):
            engine.write((str(number),), Record("array", {}, {}, {}))
    names = engine.children()
    page = [next(names) for _ in range(200)]
    engine.delete(("450",))
    engine.write(("new",), record(1))
    assert [*page, *names] == [str(number) for number in range(500) if number != 450]
    engine.close()
