"""One cache, many processes, threads and tasks: each result is computed once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import cache_jobs
import pytest
from servers import SERVERS, new_store, server

from datastore_lab import open_store
from datastore_lab.cache import cached
from datastore_lab.cache.shelf import Shelf
from datastore_lab.engines.sql.engine import SQLEngine
from datastore_lab.errors import EngineError
from datastore_lab.records import Locks
from datastore_lab.testing.processes import CONTEXT

PLACES = ["c.h5", "c.zarr", "c.parquets", "c.sqlite", *SERVERS]


@pytest.fixture(params=PLACES)
def url(request, tmp_path):
    return new_store(server(request.param)) if request.param in SERVERS else str(tmp_path / request.param)


class Children:
    """Processes that ask for the same result at once."""

    def __init__(self, count, *arguments):
        self.pipes, self.processes = [], []
        for _ in range(count):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_run, args=(theirs, *arguments), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def await_all(self, seconds=120):
        for pipe in self.pipes:
            assert pipe.poll(seconds), "a process is silent"
            pipe.recv_bytes()

    def end(self):
        for process in self.processes:
            process.join(60)
        return [process.exitcode for process in self.processes]


def _run(pipe, *arguments):
    cache_jobs.ask(lambda: pipe.send_bytes(b"."), *arguments)


def calls(folder):
    return [path.name for path in folder.iterdir() if path.name != "go"]


def test_processes_compute_a_result_once(url, tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    children = Children(8, url, 3, str(folder), 0.3)
    children.await_all()
    (folder / "go").touch()
    assert children.end() == [0] * 8
    assert len(calls(folder)) == 1


def test_without_locks_each_process_computes(tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    children = Children(2, str(tmp_path / "c.sqlite"), 3, str(folder), -2.0, False)
    children.await_all()
    (folder / "go").touch()
    assert children.end() == [0] * 2
    assert len(calls(folder)) == 2


def test_a_waiter_takes_over_from_one_that_is_killed(url, tmp_path):
    """Three wait for one that is killed: one of them computes within 2 s, and the others get its result."""
    folder = tmp_path / "calls"
    folder.mkdir()
    owner = Children(1, url, 3, str(folder), 600.0)
    owner.await_all()
    (folder / "go").touch()
    cache_jobs.wait_for(lambda: calls(folder))
    waiters = Children(3, url, 3, str(folder), 0.0)
    waiters.await_all()
    time.sleep(1)
    assert len(calls(folder)) == 1
    os.kill(owner.processes[0].pid, signal.SIGKILL)
    killed = time.monotonic()
    cache_jobs.wait_for(lambda: len(calls(folder)) > 1)
    assert time.monotonic() - killed < 2
    assert waiters.end() == [0] * 3
    assert len(calls(folder)) == 2


@pytest.mark.parametrize("name", [*SERVERS, "c.sqlite"])
def test_locks_of_an_engine(name, tmp_path):
    address = new_store(server(name)) if name in SERVERS else str(tmp_path / name)
    with open_store(address) as store:
        engines = [SQLEngine(address) for _ in range(2)]
        if name not in SERVERS:
            assert engines[0].lock("a") is None
        else:
            with engines[0].lock("a") as first, engines[1].lock("a") as second, engines[1].lock("b") as third:
                assert (first, second, third) == (True, False, True)
            with engines[1].lock("a") as again:
                assert again
            with engines[0].lock("a"):
                engines[0].close()
                with engines[1].lock("a") as second:
                    assert not second
            with engines[1].lock("a") as again:
                assert again
        for engine in engines:
            engine.close()
            with pytest.raises(EngineError, match="is closed"):
                engine.lock("a")
        assert isinstance(store.engine, Locks)


def test_threads_and_tasks_compute_a_result_once():
    ran = []

    async def work(x):
        ran.append(x)
        await asyncio.sleep(0.05)
        return [x]

    function = cached(ignore_kwargs="ran")(work)

    async def ask():
        return await asyncio.gather(*(function(x) for x in (1, 2) for _ in range(5)))

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(ask()) == [[1]] * 5 + [[2]] * 5
    assert sorted(ran) == [1, 2]


def test_an_error_hands_the_turn_on():
    ran = []

    async def work(x):
        ran.append(x)
        await asyncio.sleep(0.02)
        if len(ran) == 1:
            raise KeyError(x)
        return x

    function = cached(ignore_kwargs="ran")(work)

    async def ask():
        return await asyncio.gather(function(1), function(1), function(1), return_exceptions=True)

    results = asyncio.run(ask())
    assert sorted(map(repr, results)) == ["1", "1", "KeyError(1)"]
    assert ran == [1, 1]


def test_a_result_that_asks_for_itself_does_not_wait_for_itself(tmp_path):
    deep = []

    def work(x):
        deep.append(x)
        return function(x) if len(deep) < 3 else x

    function = cached(tmp_path / "c.h5", ignore_kwargs=["deep", "function"])(work)
    assert function(1) == 1
    assert deep == [1, 1, 1]


def test_a_thread_that_waits_says_so(tmp_path):
    told, shelf, entered = [], Shelf(tmp_path / "c.h5"), threading.Event()

    def wait():
        with shelf.turn("f", "k", told.append) as turn:
            assert turn.waited
        entered.set()

    with shelf.turn("f", "k", told.append):
        thread = threading.Thread(target=wait)
        thread.start()
        cache_jobs.wait_for(lambda: told)
        assert not entered.is_set()
    thread.join()
    assert told == ["another thread of this program"]
    assert entered.is_set()


def test_a_forked_child_has_no_turns_of_its_parent(tmp_path):
    shelf = Shelf(tmp_path / "c.h5")
    with shelf.turn("f", "k"):
        child = os.fork()
        if not child:
            taken = shelf._locks.acquire(shelf.turn("f", "k")._number)
            os._exit(1 if taken else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_processes_keep_different_results_in_one_file(tmp_path):
    with open_store(tmp_path / "c.h5"):
        pass
    folder = tmp_path / "calls"
    folder.mkdir()
    groups = [Children(1, str(tmp_path / "c.h5"), x, str(folder), 0.0) for x in range(4)]
    for group in groups:
        group.await_all()
    (folder / "go").touch()
    assert [group.end() for group in groups] == [[0]] * 4
    function = cached(tmp_path / "c.h5", ["folder", "seconds", "note", "wait_for"], deps="none")(
        cache_jobs.slow
    )
    assert all(function.is_cached(x, "", 0.0) for x in range(4))
