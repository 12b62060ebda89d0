"""Work in processes that may die: many cases in children, and a writer that is killed.

Children are forked from a server that has imported the engines once, so that one costs milliseconds. What
they run has to be importable by name.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
"""Where children come from."""

if sys.platform != "win32":
    CONTEXT.set_forkserver_preload(["__main__", "datastore_lab.testing._preload"])

Judge = Callable[[Any], Any]

_TURN = threading.Lock()
"""Held while a child starts or its end is awaited: starting one asks how all others ended, and who asks
at the same time is told that nobody knows."""


class Outcome(NamedTuple):
    """What became of one case.

    Attributes
    ----------
    case : object
    found : object
        What the judge returned; None if it did not.
    failure : str
        Why it did not: a traceback, a signal, or that it took too long; empty if it did.
    """

    case: Any
    found: Any
    failure: str


class _Worker:
    """A child that judges one case after another, replaced when it died or took too long."""

    def __init__(self, make: Callable[..., Judge], arguments: tuple[Any, ...]) -> None:
        self._make, self._arguments = make, arguments
        self._case: Any = None
        self._seconds = self._deadline = 0.0
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs, self._make, self._arguments))
        with _TURN:
            self._process.start()
        theirs.close()

    def give(self, case: Any, seconds: float) -> None:
        self._case, self._seconds, self._deadline = case, seconds, time.monotonic() + seconds
        self.pipe.send(case)

    def late(self) -> bool:
        return time.monotonic() > self._deadline

    def outcome(self) -> Outcome:
        try:
            if self.pipe.poll():
                return Outcome(self._case, *self.pipe.recv())
            failure = f"it took longer than {self._seconds} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            failure = f"the process died: {how(self._process.exitcode)}"
        self.end()
        self._start()
        return Outcome(self._case, None, failure)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()
        self._process.close()


def _serve(pipe: Connection, make: Callable[..., Judge], arguments: tuple[Any, ...]) -> None:
    judge = make(*arguments)
    while True:
        try:
            case = pipe.recv()
        except EOFError:  # whoever wanted to know is gone
            return
        try:
            answer = (judge(case), "")
        except BaseException:  # an assertion of pytest is no Exception
            answer = (None, traceback.format_exc())
        pipe.send(answer)


def how(code: int | None) -> str:
    """Say how a process ended."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def judge_all(
    make: Callable[..., Judge],
    arguments: tuple[Any, ...],
    cases: Iterable[Any],
    *,
    workers: int | None = None,
    seconds: float = 60.0,
) -> Iterator[Outcome]:
    """Judge cases in children; one that dies or hangs is replaced, and costs its one case only.

    Parameters
    ----------
    make : callable
        Called in each child as ``make(*arguments)``, gives the judge: a function of one case.
    arguments : tuple
    cases : iterable
    workers : int, optional
        How many children; one per core if not given.
    seconds : float
        How long one case may take.
    """
    left = iter(cases)
    team = [_Worker(make, arguments) for _ in range(workers or os.cpu_count() or 1)]
    busy = [worker for worker in team if _feed(worker, left, seconds)]
    try:
        while busy:
            ready = wait([worker.pipe for worker in busy], timeout=1.0)
            for worker in [worker for worker in busy if worker.pipe in ready or worker.late()]:
                yield worker.outcome()
                if not _feed(worker, left, seconds):
                    busy.remove(worker)
    finally:
        for worker in team:
            worker.end()


def _feed(worker: _Worker, left: Iterator[Any], seconds: float) -> bool:
    for case in left:
        worker.give(case, seconds)
        return True
    return False


def ahead(work: Callable[..., Any], cases: Iterable[Any]) -> Iterator[Any]:
    """Do some work on each case in a few threads, and give the results in order.

    For work that starts processes: in a child it would start a server of its own first, and import
    everything once more.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(work, cases)


def all_well(outcomes: Iterable[Outcome], limit: int = 5) -> int:
    """Count cases, and raise if there was anything to say about any of them.

    Raises
    ------
    AssertionError
        With the first few in full.
    """
    count, failed = 0, []
    for outcome in outcomes:
        count += 1
        if outcome.failure or outcome.found:
            failed.append(f"{outcome.case!r}: {outcome.failure or outcome.found}")
    if failed:
        more = "\n".join(failed[:limit])
        raise AssertionError(f"{len(failed)} of {count} cases did not hold; the first are\n{more}")
    return count


def run_and_kill(work: Callable[..., None], arguments: tuple[Any, ...], after: int, delay: float) -> int:
    """Start a writer, kill it a moment after so many acknowledgements, and say how many there were.

    Parameters
    ----------
    work : callable
        Called in a child as ``work(acknowledge, *arguments)``; calls ``acknowledge()`` after each step.
    arguments : tuple
    after : int
        How many acknowledgements to await.
    delay : float
        How long to wait then, in seconds, so that the signal falls anywhere into a step.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    with ours:
        process = CONTEXT.Process(target=_acknowledging, args=(theirs, work, arguments), daemon=True)
        with _TURN:
            process.start()
        theirs.close()
        count = _take(ours, after)
        time.sleep(delay)
        with _TURN:
            process.kill()
            process.join()
        count += _take(ours, sys.maxsize)
        code = process.exitcode
        process.close()
    if code not in {0, -signal.SIGKILL}:
        raise AssertionError(f"the writer ended by itself after {count} steps: {how(code)}")
    return count


def _acknowledging(pipe: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    work(lambda: pipe.send_bytes(b"."), *arguments)


def _take(pipe: Connection, most: int) -> int:
    for count in range(most):
        try:
            pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            return count
    return most
