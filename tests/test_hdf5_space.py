"""What is mapped stays as it is, what is declared is not believed, and large stores answer at once."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import sys
import textwrap
import zlib
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.engines.hdf5 import HDF5Engine, space
from datastore_lab.errors import BadKey, Corrupt, EngineError, Foreign, LabError
from datastore_lab.keys import DEEPEST
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing import crash


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


PACKINGS = [{}, {"chunks": (500,)}, {"chunks": (500,), "compression": 9, "shuffle": True}]


@pytest.mark.parametrize("packing", PACKINGS, ids=["one piece", "chunks", "packed chunks"])
def test_texts_that_all_refer_to_one_are_refused_before_memory_is_asked_for(path, packing):
    with h5py.File(path, "w") as file:
        for name in ("texts", "whole"):
            texts = file.create_dataset(
                name, (2000,), h5py.string_dtype(), **(packing if name == "texts" else {})
            )
            texts[:] = ["x" * (1 << 20)] + [""] * 1999
        few = file.create_dataset(
            "few", (3,), h5py.string_dtype(), **{**packing, **({"chunks": (2,)} if packing else {})}
        )
        few[:] = ["one", "", "three"]
    point_all_to_the_first(path, packing)
    engine = HDF5Engine(path, "r")
    with pytest.raises(Foreign, match="in parts"):
        engine.read((), "texts")
    assert any(problem.name == "texts" and "would take" in problem.what for problem in engine.verify())
    assert engine.read((), "texts", (slice(3, 5),)).tolist() == ["x" * (1 << 20)] * 2
    assert engine.read((), "few").tolist() == ["one", "", "three"]
    engine.close()


def point_all_to_the_first(path, packing):
    """Write the reference to the first text of ``whole`` over all of ``texts``."""
    with h5py.File(path) as file:
        source, target = (
            file[name].id.get_offset() if file[name].chunks is None else 0 for name in ("whole", "texts")
        )
    raw = path.read_bytes()[source : source + 16] * 500
    if "compression" in packing:
        raw = zlib.compress(raw)
    with path.open("r+b") as file:
        file.seek(target)
        file.write(b"" if packing else raw * 4)
    with h5py.File(path, "r+") as file:
        for at in range(0, 2000 if packing else 0, 500):
            file["texts"].id.write_direct_chunk((at,), raw, 1 if "shuffle" in packing else 0)


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


@pytest.fixture
def little(monkeypatch):
    """Files of any size are worth compacting."""
    monkeypatch.setattr(space, "LEAST", 100_000)


def dying(path, **options):
    """A store most of which is dead."""
    engine = HDF5Engine(path, **options)
    engine.write(("kept",), record(7, 10_000))
    for turn in range(3):
        engine.write(("replaced",), record(turn, 50_000))
    engine.write(("group", "deleted"), record(1, 50_000))
    engine.delete(("group",))
    return engine


def test_closing_gives_back_what_is_mostly_dead(path, little):
    dying(path, compact_above=None).close()
    assert path.stat().st_size > 1_600_000
    assert dead(path) > 1_200_000
    HDF5Engine(path).close()
    assert path.stat().st_size < 600_000
    assert dead(path) == 0
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    engine = HDF5Engine(path, "r")
    assert list(engine.verify()) == []
    assert set(engine.children()) == {"kept", "replaced"}
    assert engine.read(("replaced",), "data").tolist() == [2] * 50_000
    engine.close()


def dead(path):
    with h5py.File(path) as file:
        return int(file.attrs.get("lab_dead", 0))


@pytest.mark.parametrize(("share", "given_back"), [(0.9, False), (0.5, True), (0, True), (None, False)])
def test_the_share_that_has_to_be_dead(path, little, share, given_back):
    dying(path, compact_above=share).close()
    assert (path.stat().st_size < 600_000) == given_back


def test_a_little_is_not_worth_writing_a_file_anew(path):
    dying(path, compact_above=0).close()
    assert path.stat().st_size > 1_600_000


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(path, share):
    with pytest.raises(ValueError, match="compact_above"):
        open_store(path, compact_above=share)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_that_is_written_anew_is_open_to_those_who_could_open_it(path, little, mode):
    engine = dying(path)
    path.chmod(mode)
    group = next((one for one in os.getgroups() if one != os.getegid()), 12 if os.geteuid() == 0 else -1)
    os.chown(path, -1, group)
    before = path.stat()
    engine.close()
    assert path.stat().st_size < 600_000
    HDF5Engine(path, "w").close()
    after = path.stat()
    assert [before.st_mode, before.st_uid, before.st_gid] == [after.st_mode, after.st_uid, after.st_gid]


@pytest.mark.parametrize("count", [2**63 - 1, -(2**63), 2**40])
def test_a_wrong_number_of_dead_bytes_is_in_the_way_of_nothing(path, count):
    engine = dying(path)
    engine.close()
    with h5py.File(path, "r+") as file:
        file.attrs["lab_dead"] = np.int64(count)
    engine = HDF5Engine(path)
    engine.delete(("replaced",))
    engine.write(("kept",), record(8))
    engine.close()
    engine = HDF5Engine(path, "r")
    assert engine.read(("kept",), "data").tolist() == [8] * 4
    assert list(engine.verify()) == []
    engine.close()


def use_up_the_numbers_of_attributes(node):
    """Leave HDF5 two of the 65,535 attributes that it numbers on one object, as years of changes do."""
    space_of_one, identifier = h5py.h5s.create(h5py.h5s.SCALAR), node.id
    for _ in range(65_536 - len(node.attrs) - 2):
        h5py.h5a.create(identifier, b"passing", h5py.h5t.NATIVE_INT8, space_of_one)
        h5py.h5a.delete(identifier, b"passing")


def test_more_changes_than_hdf5_numbers_attributes(path):
    engine = HDF5Engine(path)
    meta = {"unit": "V", "text": "\0é", **{str(number): number / 2 for number in range(12)}}
    for name in ("a", "b"):
        engine.write((name,), Record("array", {"data": np.arange(4)}, meta, {}))
    engine.close()
    with h5py.File(path, "r+") as file:
        file["a"].attrs["theirs"] = np.array([(1, 2.5)], [("x", "i2"), ("y", "f8")])
        file["a"].attrs["nothing"] = h5py.Empty("f4")
        for name in ("a", "/"):
            use_up_the_numbers_of_attributes(file[name])
    engine = HDF5Engine(path)
    list(engine.repair(accept=True))
    before = dict(engine.stat(("a",)).meta)
    for turn in range(5):
        engine.update(("a",), {"turn": turn})
        engine.write(("b",), record(turn))
    assert list(engine.stat(("a",)).meta.items()) == [*before.items(), ("turn", 4)]
    assert before["theirs"] == [{"x": 1, "y": 2.5}]
    assert list(engine.verify()) == []
    engine.close()
    with h5py.File(path) as file:
        assert file["a"].attrs["theirs"].dtype == [("x", "i2"), ("y", "f8")]
        assert file.attrs["lab_dead"] > 0


def test_what_was_undone_is_not_counted_as_dead(path):
    engine = HDF5Engine(path)
    engine.write(("a",), record(1, 50_000))
    with pytest.raises(ZeroDivisionError):
        delete_and_fail(engine)
    engine.close()
    assert dead(path) == 0


def delete_and_fail(engine):
    with engine.transaction():
        engine.delete(("a",))
        raise ZeroDivisionError


def test_readers_are_not_disturbed_when_a_file_is_written_anew(path, little):
    engine = dying(path)
    reader = HDF5Engine(path, "r")
    with h5py.File(path) as file:
        offset = file["kept/data"].id.get_offset()
    mapped = np.memmap(path, "i8", "r", offset, (10_000,))
    assert reader.read(("kept",), "data").sum() == 70_000
    before = reader.revision()
    engine.close()
    assert path.stat().st_size < 600_000
    assert mapped.tolist() == [7] * 10_000
    assert reader.read(("kept",), "data").tolist() == [7] * 10_000
    assert reader.revision() > before
    reader.close()


def test_an_open_stream_and_an_open_transaction_keep_a_file_as_it_is(path, little):
    engine = dying(path)
    stream = engine.append(("run",), Stat("stream", {"v": ArrayInfo("<i8", (0,), ("time",), 0, None)}, {}))
    engine.close()
    assert path.stat().st_size > 1_600_000
    del stream
    engine = HDF5Engine(path)
    with pytest.raises(EngineError, match="closed inside"), engine.transaction():
        engine.close()
    assert path.stat().st_size > 1_600_000


def test_a_file_that_compacting_would_harm_is_tried_once(path, little, monkeypatch):
    engine = dying(path, compact_above=None)
    engine.close()
    with h5py.File(path, "r+") as file:
        file["soft"] = h5py.SoftLink("/kept")
    size = path.stat().st_size
    HDF5Engine(path).close()
    assert path.stat().st_size >= size
    monkeypatch.setattr(HDF5Engine, "compact", None)  # is not called again
    HDF5Engine(path).close()


def test_closing_never_fails_for_want_of_room(path, little, monkeypatch):
    engine = dying(path)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    engine.close()
    assert path.stat().st_size > 1_600_000
    assert dead(path) > 1_200_000


@pytest.mark.parametrize("forever", [False, True])
def test_closing_never_fails_if_the_disk_does(tmp_path, little, forever):
    for at in itertools.count():
        path = tmp_path / f"{at}.h5"
        disk = crash.FailingDisk(at, errno.ENOSPC, forever=forever)
        engine = dying(path, disk=disk)
        disk.arm()
        engine.close()
        assert {item.name for item in tmp_path.glob(f"{at}.h5*")} <= {path.name, f"{path.name}-journal"}
        engine = HDF5Engine(path, compact_above=None)
        assert engine.read(("kept",), "data").tolist() == [7] * 10_000
        assert set(engine.children()) == {"kept", "replaced"}
        assert list(engine.verify()) == []
        engine.close()
        path.unlink()
        if not disk.failed:
            break
    assert at > 5


def test_what_was_deleted_may_be_damaged(path):
    engine = HDF5Engine(path)
    engine.write(("a",), record(1, 5000))
    engine.close()
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["a"].id).addr
    with path.open("r+b") as file:
        file.seek(address)
        file.write(b"nothing")
    engine = HDF5Engine(path)
    with contextlib.suppress(LabError):
        engine.delete(("a",))
    engine.write(("b",), record(1))
    engine.close()
