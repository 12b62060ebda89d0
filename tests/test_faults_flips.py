"""A flipped bit is reported, and never read as if nothing had happened; repairing never makes it worse."""

import hashlib
import shutil

import pytest
from engines import FILES

from datastore_lab.errors import LabError, NotFound
from datastore_lab.testing.flips import compare, files, fill, fill_rows, flip, learn, plan, reported
from datastore_lab.testing.processes import all_well, judge_all

SEALED = MENDED = REPAIRED = FILES
FLIPPED = [case for case in FILES if case.engine not in {"hdf5"}]


def make(case, folder, *, big):
    """Make a closed store in a folder of its own."""
    folder.mkdir()
    engine = case.open(folder / case.name, "w")
    (fill if case.whole else fill_rows)(engine, big=big)
    engine.close()
    return folder


def known(case, folder):
    engine = case.open(folder / case.name, "r")
    try:
        return learn(engine)
    finally:
        engine.close()


def copier(folder):
    """Give a function that makes a copy of a store for one case and this process."""

    def copy(name):
        target = folder.with_name(f"{folder.name} {name}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        return target

    return copy


def flipping(case, folder, truth):
    """Give a judge of one flip: None if all is well, else what is wrong."""
    copy = copier(folder)

    def judge(one):
        damaged = copy(hashlib.md5(repr(one).encode()).hexdigest())
        flip(damaged, one)
        try:
            return look(case, damaged / case.name, truth)
        finally:
            shutil.rmtree(damaged)

    return judge


def look(case, path, truth):
    try:
        engine = case.open(path, "r")
    except NotFound as error:
        return f"the store is said not to be there: {error}"
    except LabError:
        return None
    try:
        found, problems = compare(engine, truth), list(reported(engine))
    finally:
        engine.close()
    if found.refused and not problems:
        return f"{list(found.refused)[:3]} can't be read, and verify() says nothing"
    return list(found.wrong.values())[:3] or None


def repairing(case, folder, truth):
    """Give a judge of repair() after one flip, and of repair(accept=True) after that."""
    copy = copier(folder)

    def judge(one):
        damaged = copy(f"repair {hashlib.md5(repr(one).encode()).hexdigest()}")
        flip(damaged, one)
        try:
            return repair(case, damaged, truth)
        finally:
            shutil.rmtree(damaged)

    return judge


def look_again(case, path, truth):
    engine = case.open(path, "r")
    try:
        return compare(engine, truth), list(engine.verify())
    finally:
        engine.close()


def repaired(case, path, **options):
    """Repair, and give what the store said that it did."""
    engine = case.open(path, "a")
    try:
        return list(engine.repair(**options))
    finally:
        engine.close()


def repair(case, folder, truth):
    path = folder / case.name
    try:
        before, problems = look_again(case, path, truth)
        content = {file: file.read_bytes() for file in files(folder)}
        steps = repaired(case, path)
    except LabError:
        return None  # nothing can be made of it, and nothing was made of it
    after, left = look_again(case, path, truth)
    if lost := after.refused - before.refused:
        return f"repair() lost {lost}"
    if new := places(left) - places(problems):
        return f"repair() made problems at {new}"
    if {file: file.read_bytes() for file in files(folder)} != content and not any(
        step.mended for step in steps
    ):
        return f"repair() changed files, and said {steps}"
    return accept(case, path, truth, after, left)


def places(found):
    return {(one.key, one.name) for one in found}


def accept(case, path, truth, before, known):
    """What is left is what can't be read, or what was there before and the repair says it did not mend."""
    steps = repaired(case, path, accept=True)
    after, problems = look_again(case, path, truth)
    if lost := {*after.refused, *after.wrong} - {*before.refused, *before.wrong}:
        return f"repair(accept=True) lost {lost}"
    if new := places(problems) - places(known):
        return f"repair(accept=True) made problems at {new}"
    said = places(step for step in steps if not step.mended) - places(step for step in steps if step.mended)
    left = [problem for problem in problems if (problem.key, problem.name) not in after.refused | said]
    return f"after {steps[:3]}, still {left[:3]}" if left else None


def share(case, scratch, times):
    """Give the two stores of an engine, each with its part of the flips."""
    small, large = make(case, scratch / "small", big=False), make(case, scratch / "large", big=True)
    return [(small, plan(small, times - times // 4)), (large, plan(large, times // 4, seed=1))]


def hold(judging, case, scratch, times):
    total = 0
    for folder, flips in share(case, scratch, times):
        total += all_well(judge_all(judging, (case, folder, known(case, folder)), flips))
    return total


@pytest.mark.parametrize("case", SEALED, ids=lambda case: case.engine)
def test_a_flipped_bit_is_never_read_silently(case, scratch):
    assert hold(flipping, case, scratch, 12) == 12


@pytest.mark.parametrize("case", MENDED, ids=lambda case: case.engine)
def test_repairing_never_makes_it_worse(case, scratch):
    assert hold(repairing, case, scratch, 4) == 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", FLIPPED, ids=lambda case: case.engine)
def test_no_flipped_bit_is_read_silently(case, scratch, faults):
    count = hold(flipping, case, scratch, faults.times(400))
    faults.tried(case.label, "one flipped bit", count)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", REPAIRED, ids=lambda case: case.engine)
def test_no_repair_makes_it_worse(case, scratch, faults):
    count = hold(repairing, case, scratch, faults.times(150))
    faults.tried(case.label, "repair after one flipped bit", count)
