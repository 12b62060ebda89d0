"""The ring against memory copies, and how long one push keeps a device waiting beside other threads."""

from __future__ import annotations

import statistics
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench
from datastore_lab import RingBuffer
from datastore_lab.records import ArrayInfo, Block, Stat

SIZE = 8_000_000
BLOCK = 64
BATCH = 100
PIECE = 6  # of these sizes a ring holds


class Latency(Bench):
    """Contestants that return the time which 99 of 100 calls do not exceed, in seconds."""

    def rows(self) -> list[str]:
        ours = self.seconds[next(iter(self.contestants))]
        lines = []
        for label, theirs in self.seconds.items():
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            spread = (max(theirs) - min(theirs)) / statistics.median(theirs)
            compared = "" if theirs is ours else f"{ratio:.2f} ×"
            figure = f"{1e6 * statistics.median(theirs):,.0f} µs"
            lines.append(f"| {self.name} | {label} | {figure} | {compared} | {spread:.0%} |")
        return lines


def view_all(count: int) -> Callable[[Path], None]:
    """Push blocks of 8 MB; a consumer looks at each where it lies."""
    spec = Stat("stream", {"x": ArrayInfo("|u1", (0, SIZE), ("time", "c"), 0, None)}, {"rate": None})
    ring = RingBuffer(spec, samples=PIECE)
    cursor = ring.cursor()
    data = {"x": np.random.default_rng(0).integers(0, 255, (1, SIZE), dtype="u1")}
    stamp = np.zeros(1, "i8")

    def run(_place: Path) -> None:
        first = ring.produced
        for number in range(first, first + count):
            ring.push(Block(number, stamp, data))
            with cursor.view() as view:
                assert view.data["x"].shape == (1, SIZE)

    return run


def copy_all(count: int) -> Callable[[Path], None]:
    source = np.random.default_rng(0).integers(0, 255, SIZE, dtype="u1")
    target = np.zeros((PIECE, SIZE), "u1")

    def run(_place: Path) -> None:
        for number in range(count):
            np.copyto(target[number % PIECE], source)

    return run


def volts() -> tuple[Stat, np.ndarray, np.ndarray]:
    spec = Stat("stream", {"v": ArrayInfo("<i2", (0,), ("time",), 0, None)}, {"rate": 1e6})
    data = np.random.default_rng(0).integers(-9999, 9999, (BATCH, BLOCK), dtype="i2")
    return spec, data, np.arange(BATCH) * (BLOCK * 1000)


def push_batches(count: int) -> Callable[[Path], None]:
    """Blocks of 64 samples, 100 at once; a consumer looks at them where they lie."""
    spec, data, stamps = volts()
    ring = RingBuffer(spec, samples=BATCH * BLOCK * 16)
    cursor = ring.cursor()

    def run(_place: Path) -> None:
        for _ in range(count // BATCH):
            ring.push_many(Block(ring.produced, stamps, {"v": data}))
            with cursor.view() as view:
                assert len(view) == BATCH * BLOCK

    return run


def push_singly(count: int) -> Callable[[Path], None]:
    spec, data, _stamps = volts()
    ring = RingBuffer(spec, samples=BATCH * BLOCK * 16)
    stamp, rows = np.arange(BLOCK) * 1000, {"v": data[0]}

    def run(_place: Path) -> None:
        first = ring.produced
        for number in range(first, first + count * BLOCK, BLOCK):
            ring.push(Block(number, stamp, rows))

    return run


def copy_batches(count: int) -> Callable[[Path], None]:
    _spec, data, _stamps = volts()
    flat, stamp = data.reshape(-1), np.arange(BATCH * BLOCK)
    size = len(flat)
    values, times = np.zeros(16 * size, "i2"), np.zeros(16 * size, "i8")

    def run(_place: Path) -> None:
        for number in range(count // BATCH):
            at = number % 16 * size
            values[at : at + size] = flat
            times[at : at + size] = stamp

    return run


@contextmanager
def beside(work: Callable[[], object], threads: int) -> Iterator[None]:
    done = threading.Event()

    def go() -> None:
        while not done.is_set():
            work()

    crowd = [threading.Thread(target=go, daemon=True) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in crowd:
            thread.join()


def native() -> Callable[[], object]:
    """What a writer does most of the time: compress, without the interpreter."""
    raw = np.random.default_rng(0).integers(0, 40, 500_000, dtype="u1").tobytes()
    return lambda: zlib.compress(raw, 1)


def python() -> Callable[[], object]:
    return lambda: sum(number * number for number in range(20_000))


def p99(
    push: Callable[[int], None], work: Callable[[], object], threads: int, calls: int
) -> Callable[[Path], float]:
    def run(_place: Path) -> float:
        took = []
        with beside(work, threads):
            for number in range(calls):
                time.sleep(0.002)  # devices come at their own rate
                begin = time.perf_counter()
                push(number)
                took.append(time.perf_counter() - begin)
        return float(np.quantile(took, 0.99))

    return run


def frame_pusher() -> Callable[[int], None]:
    spec = Stat(
        "stream", {"frame": ArrayInfo("|u1", (0, 480, 640), ("time", "y", "x"), 0, None)}, {"rate": 200.0}
    )
    ring = RingBuffer(spec, samples=128)
    stamp, rows = np.zeros(1, "i8"), {"frame": np.zeros((1, 480, 640), "u1")}
    return lambda _number: ring.push(Block(ring.produced, stamp, rows))


def block_pusher() -> Callable[[int], None]:
    spec, data, _stamps = volts()
    ring = RingBuffer(spec, samples=100_000)
    stamp, rows = np.arange(BLOCK), {"v": data[0]}
    return lambda _number: ring.push(Block(ring.produced, stamp, rows))


def frame_copier() -> Callable[[int], None]:
    target, frame = np.zeros((128, 480, 640), "u1"), np.zeros((480, 640), "u1")
    return lambda number: np.copyto(target[number % 128], frame)


def benches(*, quick: bool) -> list[Bench]:
    frames, blocks, calls = (50, 20_000, 200) if quick else (300, 500_000, 1500)
    rows = [
        Bench(
            "ring, 8 MB at a time, looked at as a view",
            {"datastore_lab": view_all(frames), "memcpy (limit)": copy_all(frames)},
            frames * SIZE / 1e6,
            "MB",
        ),
        Bench(
            f"ring, blocks of {BLOCK} samples, {BATCH} at once",
            {"datastore_lab": push_batches(blocks), "numpy slices (limit)": copy_batches(blocks)},
            blocks,
            "blocks",
        ),
        Bench(
            f"ring, blocks of {BLOCK} samples singly",
            {"datastore_lab": push_singly(blocks // 10)},
            blocks // 10,
            "blocks",
        ),
    ]
    for name, work, threads in [("two native writers", native(), 2), ("a load in pure Python", python(), 1)]:
        rows.append(
            Latency(
                f"99 % of the pushes of a 640x480 frame beside {name}",
                {
                    "datastore_lab": p99(frame_pusher(), work, threads, calls),
                    "numpy copy": p99(frame_copier(), work, threads, calls),
                },
                1,
                "",
            )
        )
        rows.append(
            Latency(
                f"99 % of the pushes of {BLOCK} samples beside {name}",
                {"datastore_lab": p99(block_pusher(), work, threads, calls)},
                1,
                "",
            )
        )
    return rows
