"""The cache against joblib, keying and hits."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import joblib
import numpy as np
import xxhash

from benchmarks.harness import Bench
from datastore_lab import cached, open_store

_fresh = itertools.count()


def scalar(x: float) -> float:
    return x * 2


def table(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(BIG)


BIG = 12_500_000


def timed(make, calls: int):
    """Time `calls` calls of what `make` prepares."""

    def run(place: Path) -> float:
        call = make(place)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    return run


def hit(function, argument):
    def prepare_ours(place: Path):
        keep = cached(open_store(place / "cache.h5"))(function)
        keep(argument)
        return lambda: keep(argument)

    def prepare_joblib(place: Path):
        keep = joblib.Memory(place, verbose=0).cache(function)
        keep(argument)
        return lambda: keep(argument)

    return prepare_ours, prepare_joblib


def first_call(function, argument):
    def prepare_ours(place: Path):
        keep = cached(open_store(place / "cache.h5"))(function)
        return lambda: keep(argument)

    def prepare_joblib(place: Path):
        keep = joblib.Memory(place, verbose=0).cache(function)
        return lambda: keep(argument)

    def prepare_save(place: Path):
        return lambda: np.save(place / "a.npy", function(argument))

    return prepare_ours, prepare_joblib, prepare_save


def benches(*, quick: bool) -> list[Bench]:
    from datastore_lab.cache.hashing import Hasher

    global BIG  # noqa: PLW0603 (the function under test must read a global of its own module)
    BIG = 1_000_000 if quick else 12_500_000
    calls = 20 if quick else 200
    array = np.random.default_rng(0).standard_normal(BIG)
    size = array.nbytes / 1e6
    hasher = Hasher(lambda _obj, path: path.encode())
    scalar_ours, scalar_joblib = hit(scalar, 3.0)
    table_ours, table_joblib = hit(table, 1)
    miss_ours, miss_joblib, miss_save = first_call(table, 2)
    return [
        Bench(
            "cache hit, scalar",
            {"datastore_lab": timed(scalar_ours, calls), "joblib": timed(scalar_joblib, calls)},
            calls,
            "hits",
        ),
        Bench(
            f"cache hit, {size:.0f} MB",
            {"datastore_lab": timed(table_ours, 1), "joblib": timed(table_joblib, 1)},
            size,
            "MB",
        ),
        Bench(
            f"cache miss, {size:.0f} MB",
            {
                "datastore_lab": timed(miss_ours, 1),
                "joblib": timed(miss_joblib, 1),
                "np.save (limit)": timed(miss_save, 1),
            },
            size,
            "MB",
            array.nbytes,
        ),
        Bench(
            f"key of {size:.0f} MB",
            {
                "datastore_lab": lambda _place: hasher.encode(array, "array"),
                "joblib.hash": lambda _place: joblib.hash(array),
                "xxh3_128 (limit)": lambda _place: xxhash.xxh3_128_hexdigest(array.data),
            },
            size,
            "MB",
        ),
    ]
