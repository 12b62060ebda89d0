"""A writer of trials that is stopped at any moment: each trial is there completely or not at all."""

import os
import random
import shutil

import numpy as np
import pytest

from datastore_lab.errors import UnknownTask
from datastore_lab.experiment import Storage, Trial
from datastore_lab.testing import power, syscalls
from datastore_lab.testing.processes import run_and_kill

TRIALS = 12


def trial_of(number):
    """Make a trial that says itself which one it is; every third brings an attribute that is new."""
    trial = Trial({"n": number, f"new{number // 3}": f"00{number}"})
    trial.add_array("emg", np.full((2, 3), number))
    if number % 2 == 0:
        trial.add_array("eeg", np.full((number, 2), number / 2))
    return trial


def write(mark, place):
    with Storage(place) as storage:
        storage.subject_id = "p1"
        task = storage.create_task("t")
        mark()
        for number in range(TRIALS):
            task.write(trial_of(number))
            mark()


def whole_trials(storage):
    """Count the trials, each of which has to be as it was written; None if there is no task."""
    try:
        task = storage.require_task("t")
    except UnknownTask:
        return None
    frame = task.trials
    count = len(frame)
    assert ([] if "n" not in frame else frame["n"].tolist()) == list(range(count))
    for name, numbers in {"emg": range(count), "eeg": range(0, count, 2)}.items():
        if count:
            assert task.numbers(name) == list(numbers)
        for number, part in zip(numbers, task.iterarray(name) if count else [], strict=True):
            expected = trial_of(number).arrays[name].data
            assert part.dtype == expected.dtype
            assert part.tolist() == expected.tolist()
    return count


def go_on(place):
    """Look at what was left, go on with it to the end, and give how many trials there were."""
    with Storage(place) as storage:
        storage.subject_id = "p1"
        found = whole_trials(storage)
        with storage.create_task("t") if found is None else storage.resume_task("t") as task:
            for number in range(found or 0, TRIALS):
                assert task.write(trial_of(number)) == number
        assert whole_trials(storage) == TRIALS
        assert storage._store.verify() == []
    left = {path.name for path in place.rglob("*") if path.is_file()}
    assert left == {"trials.csv", "trials.csv.json", "emg.hdf5", "eeg.hdf5"}
    return found


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    folder, notes = (tmp_path_factory.mktemp(name) for name in ("live", "notes"))
    return syscalls.record(write, (folder / "data",), folder, notes)


def judge(changes, scratch, share):
    """Hold a share of all states that a crash can leave against what was acknowledged."""
    place, count = power.Place(scratch / f"{os.getpid()}"), 0
    for state in power.states(changes, 7, share):
        place.put(state.files)
        found = go_on(place.folder / "data") if (place.folder / "data").is_dir() else None
        if state.marks:
            assert found is not None, f"the task is gone after {state.after} ({state.how})"
        assert max(state.marks - 1, 0) <= (found or 0) <= state.marks, f"after {state.after} ({state.how})"
        count += 1
    return count


def test_a_crash_while_trials_are_written(changes, scratch):
    assert judge(changes, scratch, 0.05) > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_crash_while_trials_are_written(changes, scratch, faults):
    count = judge(changes, scratch, faults.share)
    faults.tried("Trials, with datasets", f"crash states of {len(changes):,} changes of the disk", count)


def killed_and_gone_on(scratch, seeds):
    for seed in seeds:
        place, choice = scratch / f"{seed}", random.Random(seed)
        place.mkdir()
        done = run_and_kill(write, (place / "data",), choice.randrange(TRIALS), choice.random() * 0.02)
        found = go_on(place / "data") if (place / "data").is_dir() else None
        assert max(done - 1, 0) <= (found or 0) <= done
        shutil.rmtree(place)


def test_a_killed_writer_of_trials(scratch):
    killed_and_gone_on(scratch, range(4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_killed_writers_of_trials(scratch, faults):
    count = faults.times(300)
    killed_and_gone_on(scratch, range(count))
    faults.tried("Trials, with datasets", "kills of a writer", count)
