"""Samples for tests of rings: every value says which sample it is."""

from __future__ import annotations

import itertools
import threading

import numpy as np

from datastore_lab.acquire.cursor import Cursor
from datastore_lab.records import ArrayInfo, Block, Stat

SPEC = Stat(
    "stream",
    {
        "x": ArrayInfo("<i8", (0,), ("time",), 0, None),
        "frame": ArrayInfo("|u1", (0, 2, 3), ("time", "y", "x"), 0, None),
    },
    {"rate": 100.0},
)
SAMPLE = 8 + 8 + 6


def block(first: int, count: int) -> Block:
    """Samples whose every value says which one it is."""
    number = np.arange(first, first + count)
    frame = np.broadcast_to((number % 251).astype("u1")[:, None, None], (count, 2, 3))
    return Block(first, number * 10, {"x": number, "frame": frame})


def check(got: Block) -> list[int]:
    numbers = list(range(got.first, got.first + len(got.time)))
    assert got.data["x"].tolist() == numbers
    assert got.time.tolist() == [10 * n for n in numbers]
    assert (got.data["frame"] == (np.array(numbers, dtype="i8") % 251)[:, None, None]).all()
    return numbers


def expand(ledger: list[list[int]]) -> list[int]:
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(ledger))
    return [n for first, last in ledger for n in range(first, last + 1)]


def law(cursor: Cursor) -> None:
    counts = cursor.counts
    assert counts.pushed == counts.delivered + counts.lost + counts.pending
    assert cursor.lost == counts.lost == len(expand(cursor.gaps))


class Threads:
    """Threads whose first error is kept for the test."""

    def __init__(self) -> None:
        self.faults: list[BaseException] = []
        self.done = threading.Event()
        self.threads: list[threading.Thread] = []

    def start(self, step, *args) -> None:
        def run():
            try:
                while step(*args):
                    pass
            except BaseException as error:
                self.faults.append(error)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.faults
