"""The ring against memcpy, and streams into files against writing by hand."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from benchmarks.harness import Bench
from datastore_lab import RingBuffer, open_store
from datastore_lab.records import ArrayInfo, Block, Stat

FRAME = (480, 640)


def frames(count: int) -> np.ndarray:
    """Camera frames with the noise of a real sensor, sigma of 3 digits."""
    rng = np.random.default_rng(0)
    scene = np.linspace(20, 200, FRAME[1], dtype="f4")[None, None]
    return np.clip(scene + 3 * rng.standard_normal((count, *FRAME), dtype="f4"), 0, 255).astype("u1")


def blocks(name: str, data: np.ndarray, size: int) -> list[Block]:
    time = np.arange(len(data), dtype="i8")
    return [
        Block(first, time[first : first + size], {name: data[first : first + size]})
        for first in range(0, len(data), size)
    ]


def push_all(spec: Stat, samples: int, sent: list[Block]):
    ring = RingBuffer(spec, samples=samples)

    def run(_place: Path) -> None:
        shift = ring.produced
        for block in sent:
            ring.push(block._replace(first=block.first + shift))

    return run


def copy_all(sent: list[Block], samples: int):
    (name, first), *_ = sent[0].data.items()
    target = np.empty((samples, *first.shape[1:]), first.dtype)

    def run(_place: Path) -> None:
        at = 0
        for block in sent:
            rows = block.data[name]
            target[at : at + len(rows)] = rows
            at = (at + len(rows)) % (samples - len(rows) + 1)

    return run


def into_store(suffix: str, name: str, info: ArrayInfo, sent: list[Block]):
    def run(place: Path) -> None:
        with open_store(place / f"run{suffix}") as store:
            appender = store.append("stream", Stat("stream", {name: info}, {}))
            for block in sent:
                appender.extend(block.data)
            appender.close({})

    return run


def into_h5py(name: str, sent: list[Block]):
    def run(place: Path) -> None:
        with h5py.File(place / "run.h5", "w") as file:
            rows = sent[0].data[name]
            chunks = (1, *rows.shape[1:]) if rows.ndim == 3 else None
            target = file.create_dataset(
                name,
                (0, *rows.shape[1:]),
                rows.dtype,
                maxshape=(None, *rows.shape[1:]),
                chunks=chunks or True,
            )
            for block in sent:
                length = len(target)
                target.resize(length + len(block.data[name]), axis=0)
                target[length:] = block.data[name]
            file.flush()
            os.fsync(file.id.get_vfd_handle())

    return run


def into_arrow(name: str, sent: list[Block]):
    def run(place: Path) -> None:
        with (place / "run.arrow").open("wb") as sink:
            writer = None
            for block in sent:
                tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(block.data[name])
                batch = pa.record_batch([tensor], names=[name])
                writer = writer or pa.ipc.new_file(sink, batch.schema)
                writer.write_batch(batch)
            writer.close()
            sink.flush()
            os.fsync(sink.fileno())

    return run


def raw(sent: list[Block], name: str):
    def run(place: Path) -> None:
        with (place / "raw").open("wb") as file:
            for block in sent:
                file.write(block.data[name].data)
            file.flush()
            os.fsync(file.fileno())

    return run


def benches(*, quick: bool) -> list[Bench]:
    count = 64 if quick else 640
    movie = frames(64)
    movie = np.concatenate([movie] * (count // 64))
    single, batches = blocks("image", movie, 1), blocks("image", movie, 16)
    image = ArrayInfo("|u1", (0, *FRAME), ("time", "y", "x"), 0, None)
    spec = Stat("stream", {"image": image}, {"rate": 30.0})
    short = np.zeros((64 * (2_000 if quick else 20_000), 1))
    daq = blocks("v", short, 64)
    volts = Stat("stream", {"v": ArrayInfo("<f8", (0, 1), ("time", "channel"), 0, None)}, {"rate": 1e5})
    size = movie.nbytes / 1e6
    return [
        Bench(
            "ring, one 640x480 frame at a time",
            {"datastore_lab": push_all(spec, 128, single), "memcpy (limit)": copy_all(single, 128)},
            size,
            "MB",
        ),
        Bench(
            "ring, blocks of 64 samples",
            {"datastore_lab": push_all(volts, 100_000, daq), "numpy slices (limit)": copy_all(daq, 100_000)},
            len(daq),
            "blocks",
        ),
        Bench(
            f"record {size:.0f} MB of frames, h5",
            {
                "datastore_lab": into_store(".h5", "image", image, batches),
                "h5py by hand": into_h5py("image", batches),
                "write + fsync (limit)": raw(batches, "image"),
            },
            size,
            "MB",
            movie.nbytes,
        ),
        Bench(
            f"record {size:.0f} MB of frames, arrow",
            {
                "datastore_lab": into_store(".arrow", "image", image, batches),
                "pyarrow by hand": into_arrow("image", batches),
                "write + fsync (limit)": raw(batches, "image"),
            },
            size,
            "MB",
            movie.nbytes,
        ),
    ]
