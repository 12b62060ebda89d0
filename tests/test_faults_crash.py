"""A crash at any moment loses nothing that was acknowledged and leaves nothing else, on every engine."""

import os
from pathlib import Path

import pytest
from engines import FILES

from datastore_lab.errors import LabError, ReadOnly
from datastore_lab.testing import power, syscalls
from datastore_lab.testing.processes import all_well, judge_all
from datastore_lab.testing.workload import Rows, Workload, expected, snapshot, values

HELD = FILES
STEPS = 200
SEED = 11
HALF_CHANGED = "open it once with mode 'r+'"


def work_on(case):
    return Workload if case.whole else Rows


def write(mark, case, path):
    """Make a store and change it, noting each step."""
    engine = case.open(path, "w")
    mark()
    work = work_on(case)(engine, SEED)
    for _ in range(STEPS):
        work.step()
        mark()
    engine.close()


@pytest.fixture(scope="module")
def record(tmp_path_factory, request):
    """Give a function that records the run of an engine, once."""
    known = {}

    def of(case):
        if case not in known:
            folder, notes = (tmp_path_factory.mktemp(f"{case.engine}-{what}") for what in ("live", "notes"))
            changes = syscalls.record(write, (case, folder / case.name), folder, notes)
            known[case] = changes, expected(work_on(case), SEED, STEPS)
            final = power.Disk()
            for change in changes:
                final.apply(change)
            assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == final.files().keys()
            for name, data in final.files().items():
                assert data is None or (folder / name).read_bytes() == data, f"{name} was not followed"
        return known[case]

    return of


def judging(case, run, folder, share):
    """Give a judge of every n-th state of a run."""
    changes, promised = run
    place = power.Place(folder / f"{case.engine} {os.getpid()}")

    def judge(part):
        first, step = part
        found, count = [], 0
        for number, state in enumerate(power.states(changes, SEED, share)):
            if number % step == first:
                count += 1
                try:
                    check(case, place, state, promised)
                except Exception as error:
                    found.append(f"after {state.after} ({state.how}): {type(error).__name__} {error}"[:600])
        return count, found

    return judge


def check(case, place, state, promised):
    """Open a state for reading and for writing; both must find what the run went through there."""
    allowed = promised[max(state.marks - 1, 0) : state.marks + 1]
    place.put(state.files)
    readers = [look(case, place.folder / case.name, "r", state)] if state.after % 4 == 0 else []
    found = look(case, place.folder / case.name, "a", state)
    assert found is None or found in allowed, (
        f"{len(found)} items, {state.marks} steps, {differences(found, allowed)}"
    )
    assert readers in ([], [found], [None]), "a reader saw another state"


def differences(found, allowed):
    return [sorted(key for key in {*found, *one} if found.get(key) != one.get(key))[:3] for one in allowed]


def look(case, path, mode, state):
    try:
        engine = case.open(path, mode)
    except LabError as error:
        if mode == "r" and state.marks in {0, STEPS + 1} and is_for_a_writer(case, path, error):
            return None
        if state.marks >= (1 if case.whole else 2):
            raise AssertionError(f"can't be opened: {error}") from error
        if mode == "a":
            begin_anew(case, path)
        return None  # nothing was acknowledged yet, not even that there is a store
    try:
        found = snapshot(engine) if case.whole else values(engine)
        assert state.after % 5 or list(engine.verify()) == []  # whatever was read was compared with its sum
        return found
    finally:
        engine.close()


def is_for_a_writer(case, path, error):
    """Whether SQLite was stopped between two kinds of log, which nobody can undo who may not write.

    It keeps pages of before in a journal then, which it can't lay over the file while it reads. That is so
    only while a store is made, and while it is closed.
    """
    refused = case.engine == "sqlite" and isinstance(error, ReadOnly) and HALF_CHANGED in str(error)
    return refused and Path(f"{path}-journal").stat().st_size > 0


def begin_anew(case, path):
    """What a crash has left of a store that was never there must not be in the way of the next one."""
    case.open(path, "w").close()
    engine = case.open(path, "r")
    try:
        assert list(engine.keys()) == []
    finally:
        engine.close()


def hold(case, run, scratch, share):
    """Judge a share of all states in several processes; give the number of changes and of states."""
    parts = [(part, os.cpu_count()) for part in range(os.cpu_count())]
    outcomes = list(judge_all(judging, (case, run, scratch, share), parts, seconds=3600))
    all_well(outcome._replace(found=outcome.found and outcome.found[1]) for outcome in outcomes)
    return len(run[0]), sum(outcome.found[0] for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", HELD, ids=lambda case: case.engine)
def test_every_crash_state_holds_what_was_promised(case, record, scratch, faults):
    changes, count = hold(case, record(case), scratch, faults.share)
    assert count > 0.9 * changes * faults.share  # (states that are alike count once)
    faults.tried(case.label, f"crash states of {changes:,} changes of the disk", count)
