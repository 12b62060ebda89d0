"""A writer that is killed at any moment loses nothing that was acknowledged, and leaves nothing else."""

import random
import shutil

import pytest
from engines import FILES

from datastore_lab.errors import NotFound
from datastore_lab.testing.processes import ahead, all_well, judge_all, run_and_kill
from datastore_lab.testing.workload import Rows, Workload, expected, snapshot, values

STEPS = 60


def work_on(case):
    return Workload if case.whole else Rows


def writer(acknowledge, case, path, seed):
    work = work_on(case)(case.open(path, "w"), seed)
    acknowledge()
    for _ in range(10 * STEPS):
        work.step()
        acknowledge()


def killing(case, folder):
    """Give a function that kills one writer, and says after how many steps."""

    def kill_once(seed):
        choice, place = random.Random(seed), folder / f"{case.engine} {seed}"
        place.mkdir()
        after, delay = choice.randrange(STEPS), choice.random() * 0.015
        return seed, run_and_kill(writer, (case, place / case.name, seed), after, delay)

    return kill_once


def judging(case, folder):
    """Give a judge of what one writer left, as a reader and the next writer find it."""

    def judge(left):
        seed, done = left
        place, copy = (folder / f"{case.engine} {seed}{suffix}" for suffix in ("", " copy"))
        steps = max(done - 1, 0)  # the first acknowledgement is that of the empty store
        allowed = expected(work_on(case), seed, steps + 1, 2)
        shutil.copytree(place, copy, symlinks=True)
        found = look(case, copy / case.name, "r", done)
        assert found in allowed, f"a reader finds another state after {done} steps"
        found = look(case, place / case.name, "a", done)
        assert found in allowed, f"a writer finds another state after {done} steps"
        assert look(case, place / case.name, "r", done) == found
        shutil.rmtree(place)
        shutil.rmtree(copy)

    return judge


def hold(case, folder, seeds):
    return all_well(judge_all(judging, (case, folder), ahead(killing(case, folder), seeds)))


def look(case, path, mode, done):
    try:
        engine = case.open(path, mode)
    except NotFound:
        assert done < (1 if case.whole else 2), f"nothing is left after {done} steps"
        return {}
    try:
        assert list(engine.verify()) == []
        return snapshot(engine) if case.whole else values(engine)
    finally:
        engine.close()


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.engine)
def test_a_killed_writer_loses_nothing(case, scratch):
    assert hold(case, scratch, range(4)) == 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", FILES, ids=lambda case: case.engine)
def test_a_writer_killed_often_loses_nothing(case, scratch, faults):
    count = hold(case, scratch, range(100, 100 + faults.times(300)))
    faults.tried(case.label, "kill -9 of the writer", count)
