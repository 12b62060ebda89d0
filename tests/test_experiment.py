"""Experiments as their users see them: designs, participants, tasks, trials."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from datastore_lab import open_store
from datastore_lab.errors import AlreadyExists, BadKey, Foreign, Locked, NotFound, NotStorable, UnknownTask
from datastore_lab.experiment import (
    Array,
    Design,
    Storage,
    StorageWriter,
    TaskReader,
    TaskWriter,
    Trial,
    TrialWriter,
    makedirs,
    read_hdf5,
    write_hdf5,
)


@pytest.fixture
def storage(tmp_path):
    with StorageWriter(tmp_path / "data") as made:
        made.subject_id = "p1"
        yield made


def trial_of(attrs=None, **arrays):
    trial = Trial(attrs or {})
    for name, data in arrays.items():
        trial.add_array(name, data)
    return trial


# -- designs


def test_a_design_numbers_blocks_and_trials_and_leaves_the_callers_mapping_alone():
    design, given = Design(), {"target": 3}
    blocks = [design.add_block(), design.add_block()]
    trials = [block.add_trial(given) for block in blocks for _ in range(2)]
    assert [trial.attrs for trial in trials] == [
        {"target": 3, "block": block, "trial": number} for block in range(2) for number in range(2)
    ]
    assert given == {"target": 3}
    assert blocks[0].add_trial().attrs == {"block": 0, "trial": 2}
    assert [list(block) for block in design] == [[*trials[:2], blocks[0][2]], trials[2:]]


def test_shuffling_is_repeatable_and_touches_no_other_randomness():
    import random

    def shuffled(seed, **options):
        block = Design().add_block()
        for number in range(20):
            block.add_trial({"n": number})
        block.shuffle(seed=seed, **options)
        return block

    random.seed(5)
    before = random.getstate()
    first = [trial.attrs["n"] for trial in shuffled(1)]
    assert random.getstate() == before
    assert first == [trial.attrs["n"] for trial in shuffled(1)] != list(range(20))
    assert first != [trial.attrs["n"] for trial in shuffled(2)]
    assert [trial.attrs["trial"] for trial in shuffled(1)] == list(range(20))
    kept = shuffled(1, reset_index=False)
    assert [trial.attrs["trial"] for trial in kept] == [trial.attrs["n"] for trial in kept] == first


def test_arrays_are_stacked_along_their_axis():
    array, piece = Array(), np.ones((2, 3))
    assert array.data is None
    array.stack(piece)
    piece[:] = 7  # a device uses its memory again
    array.stack(np.zeros((2, 2)))
    assert array.data.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    with pytest.raises(NotStorable, match=r"\(3, 3\).*axis 1"):
        array.stack(np.zeros((3, 3)))
    with pytest.raises(NotStorable, match="stack_axis"):
        array.stack(np.zeros(3))
    assert array.data.shape == (2, 5)
    array.clear()
    assert array.data is None
    rows = Array([1, 2], stack_axis=0)
    rows.stack([3])
    assert rows.data.tolist() == [1, 2, 3]
    with pytest.raises(BadKey, match="attribute"):
        Trial({"emg": 1}).add_array("emg")


# -- storage


def test_participants_and_tasks(tmp_path, storage):
    assert Storage is StorageWriter
    assert (storage.subject_ids, storage.task_ids) == (["p1"], [])
    storage.create_task("reach").close()
    storage.create_task("grasp").close()
    assert storage.task_ids == ["grasp", "reach"]
    storage.subject_id = "p0"
    assert (storage.subject_ids, storage.task_ids) == (["p0", "p1"], [])
    with pytest.raises(UnknownTask, match=r"'p0'.*'reach'.*none") as caught:
        storage.require_task("reach")
    assert isinstance(caught.value, NotFound)
    assert isinstance(caught.value, ValueError)
    with StorageWriter(tmp_path / "data") as other:
        assert (other.subject_id, other.task_ids) == (None, [])
        with pytest.raises(BadKey, match="subject_id"):
            other.create_task("x")


@pytest.mark.parametrize(
    "name", ["../p", "a/b", "/etc", "a\\b", ".", "..", ".git", "", " ", "a\0b", "a\nb", 7, None]
)
def test_no_name_leads_out_of_the_root(tmp_path, storage, name):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadKey):
        storage.subject_id = name
    with pytest.raises(BadKey):
        storage.create_task(name)
    assert storage.subject_id == "p1"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["P1", "mod\u00e8le 3", "con", "a:b", "100%", "x" * 199, "007"])
def test_unusual_names_come_back(storage, name):
    storage.subject_id = name
    storage.create_task(name).write(trial_of({"n": 1}))
    assert name in storage.subject_ids
    assert storage.task_ids == [name]
    assert storage.require_task(name).trials["n"].tolist() == [1]


def test_a_name_that_is_too_long(storage):
    with pytest.raises(BadKey, match="too long"):
        storage.create_task("x" * 300)


def test_a_task_in_full(tmp_path, storage):
    design = Design()
    block = design.add_block()
    with storage.create_task("reach") as task:
        for number in range(3):
            trial = block.add_trial({"target": f"00{number}", "late": number == 1, "angle": number / 2})
            trial.add_array("emg")
            for _ in range(2):
                trial.arrays["emg"].stack(np.full((2, 3), number))
            trial.add_array("empty")
            assert task.write(trial) == number
        assert len(task) == 3
    folder = tmp_path / "data/p1/reach"
    assert sorted(path.name for path in folder.iterdir()) == ["emg.hdf5", "trials.csv", "trials.csv.json"]
    with h5py.File(folder / "emg.hdf5") as plain:  # as anybody reads it
        assert sorted(plain) == ["0", "1", "2"]
        assert plain["2"][...].tolist() == np.full((2, 6), 2).tolist()
    table = pd.read_csv(folder / "trials.csv", dtype={"target": str})
    assert table["target"].tolist() == ["000", "001", "002"]
    for reader in (storage.require_task("reach"), TaskReader(folder)):
        frame = reader.trials
        assert list(frame) == ["target", "late", "angle", "block", "trial"]
        assert frame["target"].tolist() == ["000", "001", "002"]
        assert frame.dtypes[["late", "angle", "block"]].tolist() == [bool, float, int]
        assert reader.arrays == ["emg"]
        assert [part[0, 0] for part in reader.iterarray("emg")] == [0, 1, 2]
        assert reader.array("emg").shape == (6, 6)
        with pytest.raises(NotFound, match="'emg'"):
            reader.array("eeg")
        with pytest.raises(NotFound, match="'emg'"):
            reader.iterarray("eeg")


def test_an_interrupted_task_goes_on_at_the_next_trial(tmp_path):
    for session in range(3):
        with Storage(tmp_path / "data") as storage:
            storage.subject_id = "p1"
            task = storage.resume_task("t") if session else storage.create_task("t")
            for number in range(2):
                assert (
                    task.write(trial_of({"session": session}, x=np.full(3, number))) == 2 * session + number
                )
    writer = TaskWriter(tmp_path / "data/p1/t")
    assert writer.write(trial_of({"session": 3, "new": "a"}, x=np.zeros(3))) == 6
    writer.close()
    reader = TaskReader(tmp_path / "data/p1/t")
    assert reader.trials["session"].tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert reader.trials["new"].tolist() == [""] * 6 + ["a"]
    assert reader.array("x").shape == (7, 3)
    with Storage(tmp_path / "data") as storage:
        storage.subject_id = "p1"
        with pytest.raises(UnknownTask):
            storage.resume_task("other")


def test_a_task_is_begun_twice_only_if_that_is_allowed(tmp_path, storage):
    storage.create_task("t").write(trial_of({"n": 1}, x=np.zeros(3)))
    with pytest.raises(AlreadyExists, match="resume_task") as caught:
        storage.create_task("t")
    assert isinstance(caught.value, ValueError)
    assert storage.require_task("t").trials["n"].tolist() == [1]
    with Storage(tmp_path / "data", allow_overwrite=True) as other:
        other.subject_id = "p1"
        other.create_task("t").write(trial_of({"m": 2}))
        assert other.require_task("t").trials["m"].tolist() == [2]
        assert other.require_task("t").arrays == []
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["p1"]


def test_what_was_left_of_a_task_that_was_deleted_goes_at_the_next_opening(tmp_path, storage):
    storage.create_task("t").write(trial_of({"n": 1}))
    storage.close()
    gone = tmp_path / "data" / ".0123456789abcdef.gone"
    (tmp_path / "data/p1/t").rename(gone)
    assert list(open_store(f"trials://{tmp_path / 'data'}", "r")) == []
    with Storage(tmp_path / "data"):
        assert not gone.exists()


def test_two_writers_of_one_task(tmp_path, storage):
    task = storage.create_task("t")
    with Storage(tmp_path / "data", allow_overwrite=True) as other:
        other.subject_id = "p1"
        for begin in (other.resume_task, other.create_task):
            with pytest.raises(Locked, match=f"process {os.getpid()}"):
                begin("t")
    assert task.write(trial_of({"n": 0})) == 0
    task.close()
    task.close()
    assert storage.resume_task("t").write(trial_of({"n": 1})) == 1


def test_a_failed_trial_is_nowhere(storage, tmp_path):
    task = storage.create_task("t")
    task.write(trial_of({"n": 0}, x=np.zeros(2), y=np.zeros(2)))
    with pytest.raises(NotStorable):
        task.write(trial_of({"n": 1}, x=np.zeros(2), y=np.array([object()])))
    with pytest.raises(NotStorable, match="attribute of a trial"):
        task.write(trial_of({"n": [1, 2]}, x=np.zeros(2)))
    reader = storage.require_task("t")
    assert reader.trials["n"].tolist() == [0]
    assert len(list(reader.iterarray("x"))) == 1
    task.close()
    with h5py.File(tmp_path / "data/p1/t/x.hdf5") as plain:
        assert list(plain) == ["0"]


def test_attributes_and_arrays_have_names_of_their_own(storage):
    task = storage.create_task("t")
    task.write(trial_of({"n": 0}, x=np.zeros(2)))
    with pytest.raises(AlreadyExists, match="array"):
        task.write(trial_of({"x": 1}))
    with pytest.raises(AlreadyExists, match="attribute"):
        task.write(trial_of({}, n=np.zeros(2)))
    assert task.write(trial_of({"n": 1})) == 1


def test_trials_that_lack_an_array(storage):
    with storage.create_task("t") as task:
        for number in range(4):
            task.write(trial_of({"n": number}, **({"x": np.full(2, number)} if number % 2 else {})))
    reader = storage.require_task("t")
    assert reader.numbers("x") == [1, 3]
    assert reader.array("x").tolist() == [[1, 1], [3, 3]]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([np.arange(3), np.arange(3)], [[0, 1, 2], [0, 1, 2]]),
        ([np.array(1.5), np.array(2)], [[1.5], [2]]),
        ([np.zeros((1, 2)), np.ones((2, 2))], [[0, 0], [1, 1], [1, 1]]),
        ([np.zeros((1, 2, 2)), np.ones((1, 2, 2))], [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]),
        ([np.array(["a"]), np.array(["long"])], [["a"], ["long"]]),
    ],
)
def test_arrays_of_all_trials_are_what_vstack_gives(storage, parts, expected):
    with storage.create_task("t") as task:
        for part in parts:
            task.write(trial_of(x=part))
    found = storage.require_task("t").array("x")
    assert found.tolist() == expected == np.vstack(parts).tolist()
    assert found.dtype == np.vstack(parts).dtype


def test_ragged_trials_are_refused_by_name(storage):
    with storage.create_task("t") as task:
        task.write(trial_of(x=np.zeros((2, 3))))
        task.write(trial_of(x=np.zeros((2, 4))))
    with pytest.raises(NotStorable, match=r"trial 1.*\(2, 4\).*iterarray"):
        storage.require_task("t").array("x")
    assert [part.shape for part in storage.require_task("t").iterarray("x")] == [(2, 3), (2, 4)]


def test_stacking_takes_the_memory_of_the_result_and_of_one_trial(storage):
    with storage.create_task("t") as task:
        for _ in range(16):
            task.write(trial_of(x=np.zeros((4, 1 << 16))))
    reader, one = storage.require_task("t"), 4 * (1 << 16) * 8
    tracemalloc.start()
    try:
        for part in reader.iterarray("x"):
            del part
        assert tracemalloc.get_traced_memory()[1] < 5 * one
        tracemalloc.reset_peak()
        assert reader.array("x").nbytes == 16 * one
        assert tracemalloc.get_traced_memory()[1] < 21 * one
    finally:
        tracemalloc.stop()


def test_a_task_is_read_while_it_is_written(storage, tmp_path):
    task = storage.create_task("t")
    reader = None
    for number in range(5):
        task.write(trial_of({"n": number}, x=np.full((2, 2), number)))
        reader = reader or TaskReader(tmp_path / "data/p1/t")
        assert reader.trials["n"].tolist() == list(range(number + 1))
        assert [part[0, 0] for part in reader.iterarray("x")] == list(range(number + 1))


def test_threads_write_tasks_side_by_side(storage):
    def work(name):
        with storage.create_task(name) as task:
            for number in range(10):
                task.write(trial_of({"n": number}, x=np.full(3, number)))

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("t0", "t1", "t2"):
        assert storage.require_task(name).array("x")[:, 0].tolist() == list(range(10))


def test_a_storage_is_a_store(storage, tmp_path):
    storage.create_task("t").write(trial_of({"n": 1}, x=np.arange(3)))
    with open_store(f"trials://{tmp_path / 'data'}", "r") as store:
        assert list(store) == ["p1/t", "p1/t/x/0"]
        assert store.record("p1/t/x/0").arrays["data"].tolist() == [0, 1, 2]


def test_folders_of_the_predecessor(tmp_path):
    folder = tmp_path / "data/p1/t"
    folder.mkdir(parents=True)
    pd.DataFrame({"block": [0, 0], "trial": [0, 1], "hand": ["l", "r"]}).to_csv(
        folder / "trials.csv", index=False
    )
    with h5py.File(folder / "emg.hdf5", "w") as file:
        file["0"], file["1"] = np.zeros((2, 3)), np.ones((2, 3))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with Storage(tmp_path / "data") as storage:
        storage.subject_id = "p1"
        reader = storage.require_task("t")
        assert reader.trials["hand"].tolist() == ["l", "r"]
        assert reader.array("emg").shape == (4, 3)
        with pytest.raises(Foreign, match="another program"):
            storage.resume_task("t")
        with pytest.raises(AlreadyExists):
            storage.create_task("t")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# -- tables, single arrays and folders


def test_rows_are_appended_to_a_table(tmp_path):
    file = tmp_path / "log.csv"
    writer = TrialWriter(file)
    assert writer.write({"subject": "007", "n": 1}) == 0
    with pytest.raises(Locked):
        TrialWriter(file)
    writer.close()
    again = TrialWriter(file)
    assert again.write({"subject": "008", "n": 2, "new": 0.5}) == 1
    assert again.data == {
        "subject": ["007", "008"],
        "n": [1, 2],
        "new": [pytest.approx(np.nan, nan_ok=True), 0.5],
    }
    again.close()
    table = pd.read_csv(file, dtype={"subject": str})
    assert list(table) == ["subject", "n", "new"]
    assert table["subject"].tolist() == ["007", "008"]


def test_the_table_of_a_task_can_be_written_alone(tmp_path):
    folder = tmp_path / "data/p1/t"
    makedirs(folder)
    writer = TrialWriter(folder / "trials.csv")
    writer.write({"n": 3})
    writer.close()
    assert TaskReader(folder).trials["n"].tolist() == [3]
    assert TaskReader(folder).arrays == []


def test_appending_a_row_writes_no_more_than_that(tmp_path):
    writer = TrialWriter(tmp_path / "log.csv")
    sizes = []
    for number in range(300):
        before = _written()
        writer.write({"n": number, "text": "x" * 20})
        sizes.append(_written() - before)
    writer.close()
    assert max(sizes[250:]) < 1.2 * max(sizes[5:50])


def _written():
    with Path("/proc/self/io").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar"))


def test_single_arrays(tmp_path):
    file = tmp_path / "a.hdf5"
    write_hdf5(file, np.arange(4))
    write_hdf5(file, ["a", "b"], dataset="names")
    write_hdf5(file, [1.5])
    assert read_hdf5(file).tolist() == [1.5]
    assert read_hdf5(file, dataset="names").tolist() == ["a", "b"]
    with h5py.File(file) as plain:
        assert sorted(plain) == ["data", "names"]
    with pytest.raises(NotStorable):
        write_hdf5(file, [object()])
    assert read_hdf5(file).tolist() == [1.5]
    with pytest.raises(NotFound):
        read_hdf5(file, dataset="other")
    with pytest.raises(NotFound):
        read_hdf5(tmp_path / "b.hdf5")
    (tmp_path / "c.hdf5").write_text("no")
    for call in (read_hdf5, lambda path: write_hdf5(path, [1])):
        with pytest.raises(Foreign, match="not an HDF5 file"):
            call(tmp_path / "c.hdf5")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.hdf5", "c.hdf5"]
    with h5py.File(tmp_path / "old.hdf5", "w") as plain:
        plain["data"] = [1, 2]
    write_hdf5(tmp_path / "old.hdf5", [3], dataset="more")
    assert read_hdf5(tmp_path / "old.hdf5").tolist() == [1, 2]


def test_makedirs(tmp_path):
    makedirs(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
    makedirs(tmp_path / "a/b", exist_ok=True)
    with pytest.raises(FileExistsError):
        makedirs(tmp_path / "a/b")
