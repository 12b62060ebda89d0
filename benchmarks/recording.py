"""Streams into HDF5 and Zarr, packed and not, against writing by hand; each is read back by another reader.

Nobody waits for the disk here, as nobody does who writes by hand: what waiting costs is in a row of its own.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import zarr

from benchmarks.harness import Bench
from datastore_lab import open_store
from datastore_lab.engines.hdf5 import columns, sums
from datastore_lab.records import ArrayInfo, Packing, Stat

FRAME = (480, 640)
OURS = "datastore_lab"
BARE = "datastore_lab without checksums"
NOISES = (3.0, 0.7)


def frames(sigma: float, count: int) -> np.ndarray:
    """Frames of a camera: a spot on a dark ground, with the noise of a sensor, in digits."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: FRAME[0], : FRAME[1]].astype("f4")
    scene = 20 + 60 * np.exp(-((x - 320) ** 2 + (y - 240) ** 2) / 7200)
    noisy = scene + sigma * rng.standard_normal((min(count, 64), *FRAME), dtype="f4") + 0.5
    movie = np.clip(noisy, 0, 255).astype("u1")
    return np.concatenate([movie] * (count // len(movie)))


def volts(count: int) -> np.ndarray:
    """What 16 channels of a 16-bit card give as volts: sines of 7 to 112 Hz with 1 mV of noise."""
    seconds = np.arange(count)[:, None] / 1e5
    clean = 3 * np.sin(2 * np.pi * 7 * np.arange(1, 17) * seconds)
    step = 20 / 65536
    return np.round((clean + 1e-3 * np.random.default_rng(1).standard_normal((count, 16))) / step) * step


def into_store(name: str, rows: np.ndarray, step: int, packing: Packing | None, durability: str = "process"):
    dims = ("time", "y", "x")[: rows.ndim]
    spec = Stat("stream", {"v": ArrayInfo(rows.dtype.str, (0, *rows.shape[1:]), dims, 0, None, packing)}, {})

    def run(place: Path) -> int:
        with open_store(place / name, durability=durability) as store:
            stream = store.append("s", spec)
            for at in range(0, len(rows), step):
                stream.extend({"v": rows[at : at + step]})
            stream.close({})
        return size_of(place / name)

    return run


@contextmanager
def no_sums():
    of, columns.sums.of = sums.of, lambda _: 0
    try:
        yield
    finally:
        columns.sums.of = of


def without_sums(run):
    def bare(place: Path) -> int:
        with no_sums():
            return run(place)

    return bare


def into_h5py(rows: np.ndarray, step: int, chunk: int, **packing):
    def run(place: Path) -> int:
        with h5py.File(place / "hand.h5", "w") as file:
            shape = (0, *rows.shape[1:])
            limit, chunks = (None, *rows.shape[1:]), (chunk, *rows.shape[1:])
            target = file.create_dataset("v", shape, rows.dtype, maxshape=limit, chunks=chunks, **packing)
            for at in range(0, len(rows), step):
                target.resize(at + len(rows[at : at + step]), axis=0)
                target[at:] = rows[at : at + step]
        return size_of(place / "hand.h5")

    return run


def into_zarr(rows: np.ndarray, step: int):
    def run(place: Path) -> int:
        target = zarr.create_array(
            place / "hand.zarr", shape=(0, *rows.shape[1:]), dtype=rows.dtype, chunks=(step, *rows.shape[1:])
        )
        for at in range(0, len(rows), step):
            target.append(rows[at : at + step])
        return size_of(place / "hand.zarr")

    return run


def into_file(rows: np.ndarray, step: int, *, sync: bool = False):
    def run(place: Path) -> int:
        with (place / "raw").open("wb", buffering=0) as file:
            for at in range(0, len(rows), step):
                file.write(rows[at : at + step].data)
            if sync:
                os.fsync(file.fileno())
        return size_of(place / "raw")

    return run


def size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def read_back(rows: np.ndarray, label: str, place: Path) -> None:
    """See that another program finds the same rows."""
    if (place / "run.h5").exists() and label != BARE:
        with h5py.File(place / "run.h5") as file:
            assert np.array_equal(file["s/v"][()], rows), label
    if (place / "run.zarr").exists():
        assert np.array_equal(zarr.open_group(place / "run.zarr", mode="r")["s/v"][:], rows), label


def frames_plain(count: int) -> list[Bench]:
    movie = frames(3, count)
    ours = into_store("run.h5", movie, 16, None)
    contestants = {
        OURS: ours,
        BARE: without_sums(ours),
        "h5py by hand": into_h5py(movie, 16, 1),
        "write (limit)": into_file(movie, 16),
    }
    durable = {
        OURS: into_store("run.h5", movie, 16, None, "disk"),
        "write + fsync (limit)": into_file(movie, 16, sync=True),
    }
    return [
        bench("frames, HDF5", contestants, movie),
        bench("frames, HDF5, on the disk", durable, movie),
    ]


def bench(name: str, contestants: dict, rows: np.ndarray) -> Bench:
    return Bench(name, contestants, rows.nbytes / 1e6, "MB", rows.nbytes, partial(read_back, rows))


def packed(what: str, rows: np.ndarray, step: int, chunk: int) -> list[Bench]:
    """The same filter by hand; gzip at the level that is usual there."""
    by_hand = {
        "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": rows.itemsize > 1},
        "szip": {"compression": "szip"},
        "lz4": {**hdf5plugin.LZ4(), "shuffle": rows.itemsize > 1},
        "zstd": {**hdf5plugin.Zstd(clevel=1), "shuffle": rows.itemsize > 1},
    }
    benches = []
    for name, options in by_hand.items():
        ours = into_store("run.h5", rows, step, Packing(name))
        hand = {f"h5py, {name} by hand": into_h5py(rows, step, chunk, **options)}
        if name == "szip":
            hand["h5py, gzip by hand"] = into_h5py(rows, step, chunk, **by_hand["gzip"])
        bare = {BARE: without_sums(ours)} if name == "gzip" else {}
        benches.append(bench(f"{what}, HDF5 {name}", {OURS: ours, **bare, **hand}, rows))
    return benches


def shards(what: str, rows: np.ndarray, step: int) -> list[Bench]:
    hand = {"zarr by hand": into_zarr(rows, step)}
    return [
        bench(f"{what}, Zarr {name}", {OURS: into_store("run.zarr", rows, step, Packing(name)), **hand}, rows)
        for name in ("zstd", "none")
    ]


def reading(what: str, rows: np.ndarray) -> Bench:
    def recorded(place: Path) -> Path:
        path = place.parent / "gzip.h5"
        if not path.exists():
            into_store("gzip.h5", rows, 16, Packing("gzip"))(place.parent)
        return path

    def ours(place: Path) -> float:
        with open_store(recorded(place), "r") as store:
            start = time.perf_counter()
            found = store.record("s").arrays["v"]
            seconds = time.perf_counter() - start
        assert np.array_equal(found, rows)
        return seconds

    def by_hand(place: Path) -> float:
        with h5py.File(recorded(place)) as file:
            start = time.perf_counter()
            found = file["s/v"][()]
            seconds = time.perf_counter() - start
        assert np.array_equal(found, rows)
        return seconds

    return Bench(f"{what}, read HDF5 gzip", {OURS: ours, "h5py by hand": by_hand}, rows.nbytes / 1e6, "MB")


EVENT = {"time": np.dtype("i8"), "value": np.dtype("f8"), "code": np.dtype("i4")}


def events(count: int) -> Bench:
    """Events of 50 kHz that come 50 at a time; by hand each makes the file longer by one."""
    rows = {name: np.arange(count).astype(dtype) for name, dtype in EVENT.items()}
    spec = {name: ArrayInfo(dtype.str, (0,), ("time",), 0, None) for name, dtype in EVENT.items()}

    def ours(place: Path) -> float:
        start = time.perf_counter()
        with open_store(place / "run.h5", durability="process") as store:
            stream = store.append("s", Stat("stream", spec, {"rate": 50_000.0}))
            for at in range(0, count, 50):
                stream.extend({name: column[at : at + 50] for name, column in rows.items()})
            stream.close({})
        seconds = time.perf_counter() - start
        with h5py.File(place / "run.h5") as file:
            assert all(np.array_equal(file["s"][name], column) for name, column in rows.items())
        return seconds

    def by_hand(place: Path) -> float:
        few = count // 200
        start = time.perf_counter()
        with h5py.File(place / "hand.h5", "w") as file:
            made = {
                name: file.create_dataset(name, (0,), dtype, maxshape=(None,))
                for name, dtype in EVENT.items()
            }
            for number in range(few):
                for name, target in made.items():
                    target.resize(number + 1, axis=0)
                    target[number] = rows[name][number]
        return (time.perf_counter() - start) * count / few

    return Bench(f"{count:,} events, HDF5", {OURS: ours, "h5py, one resize each": by_hand}, count, "events")


def benches(*, quick: bool) -> list[Bench]:
    few = 16 if quick else 128
    found = frames_plain(64 if quick else 640)
    for sigma in NOISES:
        movie = frames(sigma, few)
        found += packed(f"frames, noise {sigma}", movie, 16, 1)
        found += shards(f"frames, noise {sigma}", movie, 16)
    found += packed("volts of 16 channels", volts(20_000 if quick else 400_000), 1000, 1000)
    return [*found, reading("frames, noise 3.0", frames(3, few)), events(20_000 if quick else 1_000_000)]
