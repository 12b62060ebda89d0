"""Files that were changed at random are read without a crash, a surprise or a look outside."""

import os
import shutil
import time
import traceback

import pytest
from engines import FILES

from datastore_lab.errors import LabError
from datastore_lab.testing.flips import files
from datastore_lab.testing.mutation import Sandbox, mutate, roam, sow
from datastore_lab.testing.processes import all_well, judge_all

ALL = 100_000
BATCH = 25
GIGABYTE = 1 << 30
NOT_YET: set[str] = set()
HELD = [case for case in FILES if case.engine not in NOT_YET]


def grow(case, folder):
    """Make a small store, and give its files."""
    folder.mkdir()
    engine = case.open(folder / case.name, "w")
    sow(engine, whole=case.whole)
    engine.compact()
    engine.close()
    return {str(file.relative_to(folder)): file.read_bytes() for file in files(folder)}


def judging(case, grown, folder):
    """Give a judge of several mutated stores, which says what went wrong with which."""
    place, outside = folder / f"{os.getpid()}", folder / f"{os.getpid()} outside"
    place.mkdir()
    outside.mkdir()
    sandbox = Sandbox(GIGABYTE)

    def judge(seeds):
        found = {}
        for seed in seeds:
            put(place, mutate(grown, seed))
            if seed % 20 == 0:
                link_out(place, outside, case.name, seed)
            if wrong := read(case, place, sandbox, parts=bool(seed % 2)):
                found[seed] = wrong
        return found

    return judge


def put(place, content):
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name, data in content.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


def link_out(place, outside, name, seed):
    """Put one file elsewhere, and a link to it in its place: whoever follows it leaves the store."""
    inner = [file for file in files(place) if file != place / name]
    if inner:
        file = inner[seed // 20 % len(inner)]
        shutil.move(file, outside / "canary")
        file.symlink_to(outside / "canary")


def read(case, place, sandbox, *, parts=False):
    """Say what went wrong with one store, if anything did."""
    try:
        with sandbox.watch(place):
            engine = case.open(place / case.name, "r")
            try:
                roam(engine, parts=parts)
            finally:
                engine.close()
    except LabError:
        pass
    except Exception:
        return traceback.format_exc(limit=-4)
    return f"read outside: {sandbox.outside}" if sandbox.outside else None


def try_all(case, scratch, count):
    """Read mutated stores; those of a batch that killed its process are tried again one by one."""
    grown, began = grow(case, scratch / "grown"), time.monotonic()
    batches = [range(first, min(count, first + BATCH)) for first in range(0, count, BATCH)]
    outcomes = list(judge_all(judging, (case, grown, scratch), batches))
    died = [range(seed, seed + 1) for outcome in outcomes if outcome.failure for seed in outcome.case]
    again = judge_all(judging, (case, grown, scratch), died)
    all_well([*(one for one in outcomes if not one.failure), *again])
    return round(count / (time.monotonic() - began))


@pytest.mark.parametrize("case", HELD, ids=lambda case: case.engine)
def test_mutated_files_are_no_danger(case, scratch):
    assert try_all(case, scratch, 100) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", HELD, ids=lambda case: case.engine)
def test_many_mutated_files_are_no_danger(case, scratch, faults):
    count = faults.times(ALL // len(HELD) // (1 if faults.share == 1 else 10))
    rate = try_all(case, scratch, count)
    faults.tried(case.label, f"mutated files, {rate} per second", count)
