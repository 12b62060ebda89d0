"""A disk that refuses, fills up or goes away ends in a typed error, and everything that was kept is there."""

import contextlib
import shutil
from itertools import product

import numpy as np
import pytest
from engines import FILES

from datastore_lab.errors import LabError, NotFound, ReadOnly
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing import failing
from datastore_lab.testing.processes import CONTEXT, ahead, all_well, judge_all
from datastore_lab.testing.workload import Rows, Workload, expected, snapshot, values

REFUSED = FILES
STEPS = 400
SEED = 5


def see(case, engine):
    return snapshot(engine) if case.whole else values(engine)


def work_until_it_fails(pipe, events, case, path):
    """Work in a child; say how far it came, and what was to be seen after the failure."""
    ready, armed, failed, mended = events
    engine = case.open(path, "w")
    work = (Workload if case.whole else Rows)(engine, SEED)
    ready.set()
    armed.wait()
    done, error = 0, None
    while error is None and done < STEPS:
        try:
            work.step()
            done += 1
        except LabError as found:
            error = f"{type(found).__name__}: {found}"
    failed.set()  # by shared memory: a pipe is written to by the very calls that fail
    mended.wait()
    seen, problems = see(case, engine), list(engine.verify())
    add_after(case, engine)
    engine.close()
    pipe.send((done, error, seen, problems))


def add_after(case, engine):
    """Do something after the failure; it must work."""
    if case.whole:
        engine.write(("after",), Record("array", {"data": np.arange(3)}, {}, {}))
        return
    info = ArrayInfo("<i8", (0,), ("time",), 0, None)
    stream = engine.append(("after",), Stat("stream", {"time": info}, {}))
    stream.extend({"time": np.arange(3)})
    stream.close({})


def refusing(case, folder):
    """Give a function that lets a call of one writer be refused, and says what came of it."""

    def refuse(fault):
        error, at = fault
        place = folder / f"{case.engine} {error} {at}"
        place.mkdir()
        events = [CONTEXT.Event() for _ in range(4)]
        ready, armed, failed, mended = events
        ours, theirs = CONTEXT.Pipe(duplex=False)
        child = CONTEXT.Process(target=work_until_it_fails, args=(theirs, events, case, place / case.name))
        child.start()
        theirs.close()
        try:
            while not ready.wait(0.2):
                assert child.is_alive(), f"the process ended: {child.exitcode}"
            with failing.refusing(child.pid, error, at, forever=error == "ENOSPC"):
                armed.set()
                while not failed.wait(0.2) and child.is_alive():
                    pass
            mended.set()
            return fault, ours.recv()
        except EOFError:
            child.join()
            return fault, f"the process ended: {child.exitcode}"
        finally:
            child.kill()
            child.join()
            ours.close()

    return refuse


def judging(case, folder):
    """Give a judge of what one writer said and left."""

    def judge(outcome):
        (error, at), said = outcome
        place = folder / f"{case.engine} {error} {at}"
        try:
            return said if isinstance(said, str) else check(case, place / case.name, *said)
        finally:
            shutil.rmtree(place)

    return judge


def check(case, path, done, said, seen, problems):
    before, after = expected(Workload if case.whole else Rows, SEED, done + 1, 2)
    if said is None and done < STEPS:
        return "nothing failed"
    if problems:
        return f"after {said}: {problems[:3]}"
    if seen != before:
        return f"after {said}: the store is not as it was; as after the step: {seen == after}"
    engine = case.open(path, "r")
    try:
        left = see(case, engine)
        problems = list(engine.verify())
    finally:
        engine.close()
    begun = case.whole or before.keys() != after.keys()
    allowed = (before, after) if begun else (after,)  # to close a stream flushes it again, and only once
    if problems or left.pop(("after",), None) is None or left not in allowed:
        return f"after {said}, opened again: {problems[:3]}, {left.keys() ^ before.keys()}"
    return None


def on_a_disk(case, folder):
    """Give a judge of what becomes of a store on a small disk that nobody else sees."""
    failing.mount(folder, "12m")
    return lambda trouble: trouble(case, folder)


def start(case, folder):
    """Keep something, and say what."""
    engine = case.open(folder / case.name, "w")
    work = (Workload if case.whole else Rows)(engine, SEED)
    for _ in range(20):
        work.step()
    return engine, see(case, engine), work


def grow(case, engine, number):
    """Write a megabyte that can't be compressed."""
    noise = np.random.default_rng(number).integers(0, 2**62, 1 << 17)
    if case.whole:
        engine.write(("big", str(number)), Record("array", {"data": noise}, {}, {}))
        return
    info = ArrayInfo("<i8", (0,), ("time",), 0, None)
    stream = engine.append((f"big{number}",), Stat("stream", {"time": info}, {}))
    stream.extend({"time": noise})
    stream.close({})


def grow_until_refused(case, engine):
    for number in range(100):
        try:
            grow(case, engine, number)
        except LabError as error:
            return number, str(error)
    raise AssertionError("a disk of 12 MB took 100")


def fills_up(case, folder):
    ballast = folder.joinpath("ballast")
    engine, old, _ = start(case, folder)
    ballast.write_bytes(bytes((4 if case.whole else 6) << 20))  # (text takes more)
    count, error = grow_until_refused(case, engine)
    assert count < 10, error
    assert old.items() <= see(case, engine).items()
    assert list(engine.verify()) == []
    ballast.unlink()
    grow(case, engine, 200)
    engine.close()
    engine = case.open(folder / case.name, "r")
    assert old.items() <= see(case, engine).items()
    assert list(engine.verify()) == []
    begun = 0 if case.whole else 1  # a stream may have been begun before its rows were refused
    assert 0 <= len(list(engine.keys())) - (len(old) + count + 1) <= begun
    engine.close()


def turns_read_only(case, folder):
    engine, old, _ = start(case, folder)
    engine.close()
    failing.make_read_only(folder)
    engine = case.open(folder / case.name, "r")
    assert see(case, engine) == old
    assert list(engine.verify()) == []
    with pytest.raises(LabError):
        grow(case, engine, 0)
    engine.close()
    with pytest.raises(ReadOnly):
        case.open(folder / case.name, "a")


def is_taken_away(case, folder):
    engine, _, work = start(case, folder)
    failing.take_away(folder)
    with pytest.raises(LabError):
        work.step()
    with contextlib.suppress(LabError):  # what was opened may still be read
        see(case, engine)
    with contextlib.suppress(LabError):
        engine.close()
    with pytest.raises(NotFound):
        case.open(folder / case.name, "r")


TROUBLES = [(case, trouble) for case in FILES for trouble in (fills_up, turns_read_only, is_taken_away)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "trouble"), TROUBLES, ids=lambda one: getattr(one, "engine", None))
def test_a_disk_that(case, trouble, scratch, faults):
    assert all_well(judge_all(on_a_disk, (case, scratch), [trouble], workers=1)) == 1
    faults.tried(case.label, f"a disk that {trouble.__name__.replace('_', ' ')}", 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.engine)
def test_a_refused_call_changes_nothing(case, scratch, faults):
    step = round(1 / faults.share)
    tried = list(product(["ENOSPC", "EIO"], range(1, 201, step)))
    count = all_well(judge_all(judging, (case, scratch), ahead(refusing(case, scratch), tried)))
    faults.tried(case.label, "ENOSPC from, or EIO at, one of the first 200 calls that write", count)
