"""Experiments as one working dataset: everything that was done, and what was made of it since."""

import random
import re
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray

from datastore_lab import cli, open_store
from datastore_lab.engines.trials import TrialsEngine
from datastore_lab.errors import AlreadyExists, Corrupt, Locked, NotFound
from datastore_lab.experiment import Storage, Trial, consolidate, storage_to_hdf5, storage_to_zarr
from datastore_lab.testing import power, syscalls
from datastore_lab.testing.processes import run_and_kill

FORMS = {"hdf5": storage_to_hdf5, "zarr": storage_to_zarr}


def add(root, subject, task, numbers, *, ragged=False, **attributes):
    with Storage(root) as storage:
        storage.subject_id = subject
        begun = task in storage.task_ids
        with storage.resume_task(task) if begun else storage.create_task(task) as writer:
            for number in numbers:
                trial = Trial({"n": number, "code": f"00{number}", **attributes})
                trial.add_array("emg", np.full((2, 3 + (number if ragged else 0)), number / 2))
                if number % 2 == 0:
                    trial.add_array("eeg", np.arange(4) + number)
                writer.write(trial)


@pytest.fixture
def root(tmp_path):
    add(tmp_path / "study", "p1", "reach", range(3))
    add(tmp_path / "study", "p1", "grasp", range(2), ragged=True)
    add(tmp_path / "study", "p2", "reach", range(1))
    return tmp_path / "study"


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def reads_of(monkeypatch):
    """Note which trials are read."""
    seen, plain = [], TrialsEngine.read

    def read(engine, key, name, selection=()):
        if name == "data":
            seen.append("/".join(key))
        return plain(engine, key, name, selection)

    monkeypatch.setattr(TrialsEngine, "read", read)
    return seen


def test_a_study_as_a_labelled_tree(root, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    suffix = ".hdf5" if form is storage_to_hdf5 else ".zarr"
    assert form("study") == str(tmp_path / f"study{suffix}")
    assert form(root, tmp_path / f"other{suffix}") == tmp_path / f"other{suffix}"
    with open_store(tmp_path / f"study{suffix}", "r") as store:
        assert set(store.children()) == {"p1", "p2"}
        reach = store["p1/reach"]
        assert isinstance(reach, xarray.Dataset)
        assert reach.sizes == {"trial": 3, "emg_1": 2, "emg_2": 3}
        assert reach["code"].values.tolist() == ["000", "001", "002"]
        assert reach["n"].dtype == np.int64
        assert reach["emg"].dims == ("trial", "emg_1", "emg_2")
        assert reach["emg"].values[:, 0, 0].tolist() == [0, 0.5, 1]
        assert "lab_arrays" not in reach
        assert list(store.children("p1/reach")) == ["eeg"]
        assert list(store.children("p1/reach/eeg")) == ["0", "2"]  # as trial 1 has none
        assert store["p1/reach/eeg/2"].tolist() == [2, 3, 4, 5]
        assert [store[f"p1/grasp/emg/{n}"].shape for n in range(2)] == [(2, 3), (2, 4)]
        assert store["p2/reach"].sizes == {"trial": 1, "emg_1": 2, "emg_2": 3, "eeg_1": 4}
        assert store.lazy("p1/reach")["emg"][1, 0, 0] == 0.5
        tree = store.tree()
        assert tree["p1/reach/emg"].shape == (3, 2, 3)
        assert store.verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"other{suffix}", "study", f"study{suffix}"]


def test_other_programs_read_it(root, tmp_path):
    storage_to_hdf5(root)
    with h5py.File(tmp_path / "study.hdf5") as file:
        assert file["p1/reach/emg"].shape == (3, 2, 3)
        assert file["p1/reach/code"].asstr()[:].tolist() == ["000", "001", "002"]
        assert file["p1/reach/emg"].dims[0].label or file["p1/reach/emg"].dims[0].keys()
    tree = xarray.open_datatree(tmp_path / "study.hdf5", engine="h5netcdf", phony_dims="sort")
    assert tree["p1/reach/emg"].dims[0] == "trial"
    tree.close()


def test_done_again_only_what_is_new_is_added_and_results_stay(root, tmp_path, monkeypatch, form):
    target = tmp_path / form(root)
    with open_store(target) as store:
        store["p1/reach/mean"] = np.arange(3.0)
        store["p1/grasp/emg_filtered"] = {"kind": "low-pass"}
        store["analysis/table"] = pd.DataFrame({"score": [1, 2]})
        store.update("p1/reach", {"checked": "by hand"})
        before = store.revision()
    seen = reads_of(monkeypatch)
    form(root)
    assert seen == []
    with open_store(target, "r") as store:
        if form is storage_to_hdf5:
            assert store.revision() >= before
    add(root, "p1", "reach", [3], late=True)
    add(root, "p1", "grasp", [2], ragged=True)
    add(root, "p3", "reach", [0])
    seen.clear()
    form(root)
    assert {one.rpartition("/")[0] for one in seen} == {
        "p1/reach/emg",
        "p1/grasp/emg",
        "p1/grasp/eeg",
        "p3/reach/emg",
        "p3/reach/eeg",
    }
    assert sorted(one for one in seen if one.startswith("p1/grasp")) == ["p1/grasp/eeg/2", "p1/grasp/emg/2"]
    with open_store(target, "r") as store:
        assert store["p1/reach"].sizes["trial"] == 4
        assert store["p1/reach"]["late"].values.tolist() == ["", "", "", "true"]
        assert store["p1/reach/mean"].tolist() == [0, 1, 2]
        assert store.attrs("p1/reach") == {"checked": "by hand"}
        assert store["p1/grasp/emg_filtered"] == {"kind": "low-pass"}
        assert store["p1/grasp/emg/2"].shape == (2, 5)
        assert store["analysis/table"]["score"].tolist() == [1, 2]
        assert store["p3/reach"].sizes["trial"] == 1
        assert store.verify() == []


def test_an_array_that_becomes_ragged_is_kept_apart(root, tmp_path, form):
    target = tmp_path / form(root)
    add(root, "p1", "reach", [7], ragged=True)
    form(root)
    with open_store(target, "r") as store:
        assert "emg" not in store["p1/reach"]
        assert list(store.children("p1/reach/emg")) == ["0", "1", "2", "3"]
        assert store["p1/reach/emg/3"].shape == (2, 10)


def test_a_task_that_was_begun_anew_replaces_the_old_one(root, tmp_path, form):
    target = tmp_path / form(root)
    with open_store(target) as store:
        store["p1/grasp/result"] = 4
    with Storage(root, allow_overwrite=True) as storage:
        storage.subject_id = "p1"
        task = storage.create_task("grasp")
        for number in range(2):
            trial = Trial({"m": number})
            trial.add_array("emg", np.full((2, 2), 9))
            task.write(trial)
    form(root)
    with open_store(target, "r") as store:
        assert set(store["p1/grasp"].variables) == {"m", "emg"}
        assert list(store.children("p1/grasp")) == ["result"]
        assert store["p1/grasp"]["emg"].values.tolist() == np.full((2, 2, 2), 9).tolist()


def test_a_task_that_is_gone_from_the_folders_stays(root, tmp_path):
    target = storage_to_hdf5(root)
    shutil.rmtree(root / "p2")
    storage_to_hdf5(root)
    with open_store(target, "r") as store:
        assert store["p2/reach"].sizes["trial"] == 1


def test_what_somebody_else_has_put_there_is_not_replaced(root, tmp_path):
    with open_store(tmp_path / "lab.h5") as store:
        store["p1/reach"] = np.arange(3)
    with pytest.raises(AlreadyExists, match="another name"):
        storage_to_hdf5(root, tmp_path / "lab.h5")
    with open_store(tmp_path / "lab.h5") as store:
        assert list(store) == ["p1/reach"]  # nor was anything else begun
        store.move("p1/reach", "mine")
    storage_to_hdf5(root, tmp_path / "lab.h5")
    with open_store(tmp_path / "lab.h5", "r") as store:
        assert store["mine"].tolist() == [0, 1, 2]
        assert store["p1/reach"].sizes["trial"] == 3


def test_what_can_not_be_consolidated(root, tmp_path):
    with pytest.raises(NotFound, match="no folder"):
        storage_to_hdf5(tmp_path / "other")
    target = storage_to_hdf5(root)
    before = target.read_bytes()
    add(root, "p2", "reach", [1])
    raw = bytearray((root / "p2/reach/emg.hdf5").read_bytes())
    with h5py.File(root / "p2/reach/emg.hdf5") as file:
        at = raw.index(file["1"][...].tobytes())
    raw[at + 3] ^= 1
    (root / "p2/reach/emg.hdf5").write_bytes(raw)
    with pytest.raises(Corrupt, match="restore it"):
        storage_to_hdf5(root)
    assert target.read_bytes() == before
    with pytest.raises(Corrupt, match="restore it"):
        storage_to_hdf5(root, tmp_path / "new.hdf5")
    assert not (tmp_path / "new.hdf5").exists()


def test_a_file_that_another_process_writes(root, tmp_path):
    target = storage_to_hdf5(root)
    add(root, "p2", "reach", [1])
    from datastore_lab.engines.hdf5 import HDF5Engine

    engine = HDF5Engine(target)
    with pytest.raises(Locked):
        storage_to_hdf5(root)
    engine.close()


def test_large_tasks_are_written_in_blocks(root, tmp_path, monkeypatch, form):
    monkeypatch.setattr(consolidate, "_WHOLE", 0)
    monkeypatch.setattr(consolidate, "_BLOCK", 100)
    target = tmp_path / form(root)
    with open_store(target) as store:
        store["p1/reach/mean"] = np.arange(3.0)
        store.update("p1/reach", {"checked": True})
    add(root, "p1", "reach", range(3, 9))
    form(root)
    with open_store(target, "r") as store:
        assert store["p1/reach"]["emg"].values[:, 1, 2].tolist() == [n / 2 for n in range(9)]
        assert store["p1/reach"]["code"].values.tolist() == [f"00{n}" for n in range(9)]
        assert store["p1/reach/mean"].tolist() == [0, 1, 2]
        assert store.attrs("p1/reach")["checked"] is True
        assert set(store.children("p1")) == {"grasp", "reach"}
        assert store.verify() == []


def test_memory_is_that_of_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(consolidate, "_WHOLE", 4 << 20)
    monkeypatch.setattr(consolidate, "_BLOCK", 2 << 20)
    with Storage(tmp_path / "study") as storage:
        storage.subject_id = "p1"
        task = storage.create_task("t")
        for number in range(40):
            trial = Trial({"n": number})
            trial.add_array("x", np.full((1, 1 << 17), number, "f8"))
            task.write(trial)
    tracemalloc.start()
    try:
        storage_to_hdf5(tmp_path / "study")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    with open_store(tmp_path / "study.hdf5", "r") as store:
        assert store.lazy("p1/t")["x"][:, 0, 5].values.tolist() == list(range(40))


def test_progress_is_told(root):
    seen = []
    storage_to_hdf5(root, progress=seen.append)
    assert [(one.items, one.of_items) for one in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1].nbytes > 0


def test_folders_of_the_predecessor(tmp_path):
    folder = tmp_path / "study/p1/t"
    folder.mkdir(parents=True)
    pd.DataFrame({"trial": [0, 1], "hand": ["l", "r"]}).to_csv(folder / "trials.csv", index=False)
    with h5py.File(folder / "emg.hdf5", "w") as file:
        file["0"], file["1"] = np.zeros((2, 3)), np.ones((2, 3))
    target = storage_to_hdf5(tmp_path / "study")
    with open_store(target, "r") as store:
        assert store["p1/t"]["hand"].values.tolist() == ["l", "r"]
        assert store["p1/t"]["emg"].values[:, 0, 0].tolist() == [0, 1]
        assert store["p1/t"]["trial"].values.tolist() == [0, 1]
    with h5py.File(folder / "emg.hdf5", "a") as file:
        file["1"][...] = 5
    storage_to_hdf5(tmp_path / "study")
    with open_store(target, "r") as store:
        assert store["p1/t"]["emg"].values[1].tolist() == np.full((2, 3), 5).tolist()


def test_tasks_without_trials_and_without_arrays(tmp_path, form):
    with Storage(tmp_path / "study") as storage:
        storage.subject_id = "p1"
        storage.create_task("nothing").close()
        storage.create_task("plain").write(Trial({"n": 1}))
    with open_store(tmp_path / form(tmp_path / "study"), "r") as store:
        assert store["p1/plain"]["n"].values.tolist() == [1]


# -- the command line and the guide


def test_the_commands(root, tmp_path, capsys):
    assert cli.main(["archive", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}.zip\n"
    assert cli.main(["archive", "--restore", f"{root}.zip", str(tmp_path / "copy"), "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["archive", "--restore", str(root)]) == 2
    assert "folder" in capsys.readouterr().err
    assert cli.main(["consolidate", str(tmp_path / "copy")]) == 0
    assert cli.main(["consolidate", "--zarr", str(root)]) == 0
    assert cli.main(["consolidate", str(root), str(tmp_path / "out.zarr")]) == 0
    for place in ("copy.hdf5", "study.zarr", "out.zarr"):
        with open_store(tmp_path / place, "r") as store:
            assert store["p1/reach"].sizes["trial"] == 3
    assert cli.main(["consolidate", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs/experiments.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/experiments.md", "exec"), scope)
    with open_store("study.hdf5", "r") as store:
        assert store["p1/reach/mean"].shape == (2, 200)
        assert store["p1/reach"].sizes["trial"] == 6


# -- interrupted at any moment


def twice(mark, folder, first, second, name):
    FORMS[name](first, folder / f"study.{name}")
    mark()
    FORMS[name](second, folder / f"study.{name}")
    mark()


@pytest.fixture
def two(root, tmp_path):
    """Give two states of one study, of which the second has more trials."""
    more = shutil.copytree(root, tmp_path / "more")
    add(more, "p1", "reach", [3, 4])
    add(more, "p3", "reach", [0])
    return root, more


def check_left(folder, two, name, done):
    target = folder / f"study.{name}"
    counts = None
    if target.exists():
        with open_store(target, "a") as store:
            counts = {key: len(store[key]["n"]) for key in store if key.count("/") == 1}
            assert store.verify() == []
    old = {"p1/reach": 3, "p1/grasp": 2, "p2/reach": 1}
    new = {**old, "p1/reach": 5, "p3/reach": 1}
    assert counts in [None, old, new][max(0, done) : done + 2]
    FORMS[name](two[1], target)
    with open_store(target, "r") as store:
        assert {key: len(store[key]["n"]) for key in store if key.count("/") == 1} == new
    assert [path.name for path in folder.iterdir()] == [target.name]


@pytest.mark.parametrize(("name", "share"), [("hdf5", 0.1), ("zarr", 0.02)])
def test_a_crash_while_consolidating(two, tmp_path, scratch, name, share):
    folder, notes = tmp_path / "live", tmp_path / "notes"
    for place in (folder, notes):
        place.mkdir()
    changes, count = syscalls.record(twice, (folder, *two, name), folder, notes), 0
    for state in power.states(changes, 5, share):
        place = power.Place(scratch / "state")
        place.put(state.files)
        check_left(place.folder, two, name, state.marks)
        shutil.rmtree(place.folder)
        count += 1
    assert count > 3


def kill(two, scratch, seeds):
    for seed in seeds:
        folder, choice = scratch / f"{seed}", random.Random(seed)
        folder.mkdir()
        work = (folder, *two, "hdf5")
        done = run_and_kill(twice, work, choice.randrange(2), choice.random() * 0.05)
        check_left(folder, two, "hdf5", done)
        shutil.rmtree(folder)


def test_killed_while_consolidating(two, scratch):
    kill(two, scratch, range(4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_often_while_consolidating(two, scratch, faults):
    count = faults.times(300)
    kill(two, scratch, range(count))
    faults.tried("Working datasets", "kills while consolidating", count)
