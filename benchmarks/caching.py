"""The cache against joblib, numpy's own files and the bare checksum: keys, hits and misses.

What a hit reads is written once, and not in every round; each round opens it anew. Behind a contestant
stands, where there is one, the goal: what ``ours is`` should be at least, or the figure of ours.
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import joblib
import numpy as np
import xxhash

from benchmarks.harness import Bench
from datastore_lab import cached, open_store
from datastore_lab.cache import entries
from datastore_lab.cache.shelf import Shelf
from datastore_lab.cache.walk import digest

T = TypeVar("T")
BIG = 12_500_000

FIRST = """
import sys, time
import datastore_lab, numpy, {library}
from datastore_lab import cached
import datastore_lab.engines.hdf5, datastore_lab.cache.upkeep, datastore_lab.objects
import datastore_lab.codecs.array, datastore_lab.codecs.value
def scalar(x: float) -> float:
    return x * 2
keep = {keep}
start = time.perf_counter()
keep(3.0)
print(time.perf_counter() - start)
"""


def scalar(x: float) -> float:
    return x * 2


def table(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(BIG)


def ready(number: int) -> np.ndarray:
    """Give an array at once: a miss is to be timed, not what computes the result."""
    return _ready[number]


_ready: dict[int, np.ndarray] = {}


def once(make: Callable[[Path], T]) -> Callable[[Path], T]:
    """Make something in the first round, in a folder that stays to the end."""
    made: list[T] = []

    def give(place: Path) -> T:
        if not made:
            made.append(make(Path(tempfile.mkdtemp(prefix="kept-", dir=place.parent))))
        return made[0]

    return give


def use(array: np.ndarray) -> int:
    return array.size


def timed(make: Callable[[Path], Callable[[], object]], calls: int = 1) -> Callable[[Path], float]:
    """Time `calls` calls of what `make` prepares."""

    def run(place: Path) -> float:
        call = make(place)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    return run


def ours(function, argument, **options) -> Callable[[Path], Callable[[], object]]:
    """Prepare a hit of this process's own."""

    def make(place: Path) -> Callable[[], object]:
        keep = cached(open_store(place / "cache.h5"), **options)(function)
        keep(argument)
        keep(argument)
        return lambda: keep(argument)

    return once(make)


def by_path(function, argument, **options) -> Callable[[Path], Callable[[], object]]:
    """Prepare a hit as a process has it that meets the entry for the first time."""

    @once
    def written(place: Path) -> Path:
        cached(place / "cache.h5", **options)(function)(argument)
        return place / "cache.h5"

    def prepare(place: Path) -> Callable[[], object]:
        keep = cached(written(place), **options)(function)
        keep._core.shelf.place.reading()
        return lambda: keep(argument)

    return prepare


def by_joblib(function, argument, **options) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        keep = joblib.Memory(place, verbose=0, **options).cache(function)
        keep(argument)
        return lambda: keep(argument)

    return once(make)


def saved(read: Callable[[Path], object]) -> Callable[[Path], Callable[[], object]]:
    """Prepare a file of numpy's to be read."""

    @once
    def written(place: Path) -> Path:
        np.save(place / "a.npy", table(1))
        return place / "a.npy"

    return lambda place: functools.partial(read, written(place))


def mapped_and_summed(path: Path) -> None:
    xxhash.xxh3_128_digest(np.load(path, mmap_mode="r").data)


def save_durably(place: Path, array: np.ndarray) -> None:
    with (place / "a.npy").open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def missed(keep: Callable[[Path], Callable[[int], object]]) -> Callable[[Path], float]:
    """Time a call whose result is there at once, and is to be kept."""
    return timed(lambda place: functools.partial(keep(place), 0))


def first_hit(keep: str, library: str) -> Callable[[Path], float]:
    """Time a hit as the first thing that a process does once libraries are imported."""

    def run(place: Path) -> float:
        return _run(written(place))

    @once
    def written(place: Path) -> Path:
        job = place / "job.py"
        job.write_text(FIRST.format(keep=keep.format(place=place), library=library))
        _run(job)
        return job

    def _run(job: Path) -> float:
        done = subprocess.run([sys.executable, str(job)], capture_output=True, text=True, check=True)
        return float(done.stdout)

    return run


def filled(count: int) -> Callable[[Path], Shelf]:
    """Make a cache of so many entries."""

    @once
    def make(place: Path) -> Shelf:
        path = place / f"many-{count}.h5"
        with open_store(path, durability="process") as store, store.transaction():
            for number in range(count):
                attrs = {"created": entries.now(), "arguments": "x=1.0", "parts": {"argument x": "1" * 32}}
                entries.keep(store, entries.entry_key("f", f"{number:032x}"), 1.5, attrs)
        shelf = Shelf(path)
        shelf.ls()
        return shelf

    return make


def slowest(make: Callable[[Path], Shelf], count: int) -> Callable[[Path], float]:
    """Time hits of entries that were not met before; gives the 99th percentile."""

    def run(place: Path) -> float:
        shelf, times = make(place), []
        for number in random.choices(range(count), k=500):
            shelf._known.clear()
            start = time.perf_counter()
            shelf.find("f", f"{number:032x}")
            times.append(time.perf_counter() - start)
        return sorted(times)[495]

    return run


def small(*, quick: bool) -> list[Bench]:
    calls = 20 if quick else 200
    few, many = (10, 300) if quick else (10, 100_000)
    ten, lots = filled(few), filled(many)
    return [
        Bench(
            "cache hit, scalar",
            {
                "datastore_lab": timed(ours(scalar, 3.0), calls),
                "datastore_lab, by path": timed(by_path(scalar, 3.0), calls),
                "joblib (goal 4 ×)": timed(by_joblib(scalar, 3.0), calls),
            },
            calls,
            "hits",
        ),
        Bench(
            "first hit of a process",
            {
                "datastore_lab (goal 100 hits/s)": first_hit("cached('{place}/c.h5')(scalar)", "h5py"),
                "joblib": first_hit("joblib.Memory('{place}', verbose=0).cache(scalar)", "joblib"),
            },
            1,
            "hits",
        ),
        Bench(
            f"99th percentile of hits among {many}",
            {"datastore_lab": slowest(lots, many), f"the same among {few} (goal 0.33 ×)": slowest(ten, few)},
            1,
            "hits",
        ),
        Bench(
            f"list {many} entries",
            {f"datastore_lab (goal {many:,} entries/s)": timed(lambda place: lots(place).ls)},
            many,
            "entries",
        ),
    ]


def large(array: np.ndarray) -> list[Bench]:
    size = array.nbytes / 1e6
    return [
        Bench(
            f"first hit, {size:.0f} MB as a view",
            {
                "datastore_lab": timed(by_path(table, 1)),
                "xxh3_128 of a mapped file (goal 0.67 ×)": timed(saved(mapped_and_summed)),
                "xxh3_128 in memory": lambda _place: xxhash.xxh3_128_digest(array.data),
                "joblib, mapped": timed(by_joblib(table, 1, mmap_mode="r")),
            },
            size,
            "MB",
        ),
        Bench(
            f"later hit, {size:.0f} MB as a view",
            {"datastore_lab (goal 500 hits/s)": timed(ours(table, 1), 20)},
            20,
            "hits",
        ),
        Bench(
            f"hit, {size:.0f} MB as a copy",
            {
                "datastore_lab": timed(ours(table, 1, copy=True)),
                "np.load (goal 0.87 ×)": timed(saved(np.load)),
                "joblib": timed(by_joblib(table, 1)),
            },
            size,
            "MB",
        ),
        Bench(
            f"cache miss, {size:.0f} MB",
            {
                "datastore_lab": missed(
                    lambda place: cached(open_store(place / "cache.h5"), deps="none")(ready)
                ),
                "joblib": missed(lambda place: joblib.Memory(place, verbose=0).cache(ready)),
                "np.save and fsync of a fresh file (goal 0.8 ×)": missed(
                    lambda place: lambda number: save_durably(place, ready(number))
                ),
            },
            size,
            "MB",
            array.nbytes,
        ),
    ]


def keys(array: np.ndarray) -> list[Bench]:
    size = array.nbytes / 1e6

    def returned(count: int) -> Callable[[Path], Callable[[], object]]:
        def make(place: Path) -> Callable[[], object]:
            kept = cached(place / "cache.h5", deps="none")(lambda: array[:count])
            kept()
            found, keep = kept(), cached(use)
            keep(found)
            return lambda: keep(found)

        return once(make)

    return [
        Bench(
            f"key of {size:.0f} MB",
            {
                "datastore_lab": lambda _place: digest(array),
                "joblib.hash (goal 20 ×)": lambda _place: joblib.hash(array),
                "xxh3_128 (goal 0.77 ×)": lambda _place: xxhash.xxh3_128_hexdigest(array.data),
            },
            size,
            "MB",
        ),
        Bench(
            f"hit with {size:.0f} MB from the cache as argument",
            {
                "datastore_lab": timed(returned(len(array)), 20),
                "the same with a tenth of it (goal 0.8 ×)": timed(returned(len(array) // 10), 20),
            },
            20,
            "hits",
        ),
    ]


def benches(*, quick: bool) -> list[Bench]:
    global BIG  # noqa: PLW0603 (the function under test must read a global of its own module)
    BIG = 1_000_000 if quick else 12_500_000
    array = _ready[0] = table(0)
    return [*small(quick=quick), *large(array), *keys(array)]
