"""Devices and writers for tests of runs, and the account that every file must balance."""

from __future__ import annotations

import threading
import time

import numpy as np

from datastore_lab.records import ArrayInfo, Block, Stat


class Counter:
    """A device that gives blocks of counted samples as fast as it is asked, until there are `total`."""

    def __init__(self, total=1000, step=10, name="counter", rate=None, width=4):
        self.name, self.total, self.step, self.rate, self.width = name, total, step, rate, width
        self.first = 0
        self.done = threading.Event()
        self.stopped = 0

    def describe(self):
        arrays = {"n": ArrayInfo("<i8", (0, self.width), ("time", "channel"), 0, None)}
        return Stat("stream", arrays, {"rate": self.rate, "units": {"n": "1"}})

    def start(self):
        self.first = 0

    def read(self, timeout):
        if self.first >= self.total:
            self.done.set()
            threading.Event().wait(min(timeout, 0.005))
            return None
        number = np.arange(self.first, min(self.first + self.step, self.total))
        block = Block(self.first, number * 1000, {"n": np.repeat(number[:, None], self.width, axis=1)})
        self.first += len(number)
        return block

    def stop(self):
        self.stopped += 1


def until(condition, seconds=20.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        threading.Event().wait(0.005)


def expand(ledger):
    return [n for first, last in ledger for n in range(first, last + 1)]


def check_account(store, stream="counter"):
    """Stored plus ledger covers each sequence number that was produced, exactly once."""
    record = store.record(stream)
    meta = record.meta
    numbers = record.arrays["sequence"].tolist()
    missing = expand(meta["gaps"]) + expand(meta["device_gaps"]) + expand(meta["skipped"])
    assert sorted(numbers + missing) == list(range(meta["produced"]))
    assert meta["written"] == len(numbers)
    assert meta["lost"] == len(expand(meta["gaps"]))
    assert meta["device_lost"] == len(expand(meta["device_gaps"]))
    return numbers, record


class Slow:
    """A writer that takes its time; what it was given is kept."""

    def __init__(self, seconds=0.0):
        self.gate = threading.Event()
        self.seconds = seconds
        self.blocks, self.documents = [], []
        self.flushed = self.closed = 0

    def consume_document(self, name, doc):
        self.documents.append((name, doc))

    def write(self, stream, block):
        self.gate.wait(self.seconds)
        if stream == "counter":
            self.blocks.append(block)

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed += 1


class Gated(Counter):
    """Gives one block each time it is told to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.allowed = threading.Semaphore(0)

    def read(self, timeout):
        if not self.allowed.acquire(timeout=0.005):
            return None
        return super().read(timeout)
