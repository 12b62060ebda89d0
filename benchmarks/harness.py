"""Interleaved timing: every round runs all contestants once, and only ratios within a round are compared.

Machines drift; two figures from two minutes apart say little, two from the same second a lot. Each timing
is preceded by what would otherwise be charged to whoever comes first: garbage collection, pending writes of
the others, and the first touch of idle pages (which on virtual machines is up to twenty times slower).
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Bench:
    """Contestants for one task; the first is ours, the others are peers and limits.

    Attributes
    ----------
    name : str
    contestants : dict of str to callable
        Each takes a fresh folder and does the task once; it may return a float, the seconds that count,
        where not all of what it does is to count, or an int, the bytes that it has written.
    amount : float
        How much one call moves, in `unit`; figures are amounts per second.
    unit : str
    touch : int
        Bytes to write and remove before each timing.
    check : callable, optional
        Called with a label and its folder after each timing, to see what is there.
    """

    name: str
    contestants: dict[str, Callable[[Path], object]]
    amount: float
    unit: str
    touch: int = 0
    check: Callable[[str, Path], None] | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def run(self, folder: Path, rounds: int) -> None:
        """Run all contestants in turn, the order turned round each time."""
        self.seconds = {label: [] for label in self.contestants}
        labels = list(self.contestants)
        for number in range(rounds + 1):  # the first round warms up and does not count
            for label in labels if number % 2 else reversed(labels):
                seconds = self._once(label, folder / f"{number}-{labels.index(label)}")
                if number:
                    self.seconds[label].append(seconds)

    def _once(self, label: str, place: Path) -> float:
        _settle(place.parent, self.touch)
        place.mkdir()
        start = time.perf_counter()
        own = self.contestants[label](place)
        seconds = own if isinstance(own, float) else time.perf_counter() - start
        if isinstance(own, int):
            self.sizes[label] = own
        if self.check is not None:
            self.check(label, place)
        shutil.rmtree(place)
        return seconds

    def rows(self) -> list[str]:
        """Give the lines of a Markdown table: median figure, and the ratio of ours to each other."""
        ours = self.seconds[next(iter(self.contestants))]
        lines = []
        for label, theirs in self.seconds.items():
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            spread = (max(theirs) - min(theirs)) / statistics.median(theirs)
            figure = _figure(self.amount / statistics.median(theirs))
            compared = "" if theirs is ours else f"{ratio:.2f} ×"
            shown = f"{label}, {self.sizes[label] / self.touch:.1%} of raw" if label in self.sizes else label
            lines.append(f"| {self.name} | {shown} | {figure} {self.unit}/s | {compared} | {spread:.0%} |")
        return lines


HEAD = "| task | who | median | ours is | spread |\n|---|---|---:|---:|---:|"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _settle(folder: Path, touch: int) -> None:
    gc.collect()
    if touch:
        path = folder / "touch"
        chunk = bytes(1 << 20)
        with path.open("wb") as file:
            for _ in range(3 * touch >> 20):
                file.write(chunk)
        path.unlink()
    os.sync()
