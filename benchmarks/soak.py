"""A camera and a card together, into two files, with somebody watching: what is lost, and what memory does.

``python -m benchmarks.soak --seconds 60`` records 640 x 480 pixels at 200 frames per second and 16 channels
of float64 at 100,000 samples per second, and prints one row of a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psutil

from datastore_lab import SimulatedCamera, SimulatedDAQ, acquire
from datastore_lab.acquire import Run

HEAD = "| seconds | frames | samples | MB/s into each file | lost | longest lag | memory begin | memory end |"
RULE = "|---:|---:|---:|---:|---:|---:|---:|---:|"


class Viewer:
    """Looks at the newest of every stream 20 times per second, and notes how the run goes."""

    def __init__(self, run: Run) -> None:
        self.memory: list[float] = []
        self.lag = 0.0
        self._run = run
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.05):
            self._run.latest("camera", 1)
            self._run.latest("daq", 2000)
            self.memory.append(process.memory_info().rss / 1e6)
            self.lag = max(self.lag, *(each["fill"] for each in self._run.stats().values()))


def record(folder: Path, seconds: float) -> str:
    devices = SimulatedCamera(rate=200), SimulatedDAQ(channels=16, rate=100_000)
    paths = [folder / "run.h5", folder / "run.arrow"]
    run = acquire(*devices, to=paths, ring="4 s", duration=seconds)
    viewer = Viewer(run)
    run.wait(seconds + 120)
    viewer.close()
    stats = run.stats()
    lost = sum(each["device_lost"] for each in stats.values())
    lost += sum(writer["lost"] for each in stats.values() for writer in each["writers"].values())
    nbytes = sum(each["writers"][str(paths[0])]["bytes"] for each in stats.values())
    part = max(1, len(viewer.memory) // 5)
    begin, end = (statistics.median(each) for each in (viewer.memory[part : 2 * part], viewer.memory[-part:]))
    cells = [
        f"{run.elapsed:.0f}",
        f"{stats['camera']['produced']:,}",
        f"{stats['daq']['produced']:,}",
        f"{nbytes / 1e6 / run.elapsed:.0f}",
        str(lost),
        f"{viewer.lag:.0%} of the ring",
        f"{begin:.0f} MB",
        f"{end:.0f} MB",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="on which disk to write; the temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", dir=arguments.folder) as folder:
        began = time.monotonic()
        row = record(Path(folder), arguments.seconds)
        print(f"{HEAD}\n{RULE}\n{row}\n\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
