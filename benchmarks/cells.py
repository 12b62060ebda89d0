"""Cached cells: a hit against running a cell that has nothing to compute."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.caching import once, timed
from benchmarks.harness import Bench

INPUTS = 10
LINES = [
    "import math",
    "def scaled(value):",
    "    return value * 2 + math.sqrt(abs(value))",
    "class Box:",
    "    def __init__(self, value):",
    "        self.value = value",
    "    def double(self):",
    "        return scaled(self.value)",
    *(f"y{number} = scaled(x{number % INPUTS}) + {number}" for number in range(37)),
    "total = sum([y0, y1, y2])",
    "print('total', total)",
    "data = np.arange(100.0) * total",
    "result = {'a': total, 'b': [1, 2, 3]}",
    "note = Box(total).double()",
]
CELL = "\n".join(LINES)
"""50 lines that read ten numbers and leave 41 variables behind."""


def shell() -> Any:
    """Make a shell with the magics and ten variables."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from datastore_lab.notebook.caching import CacheMagics

    made = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    made.register_magics(CacheMagics)
    made.run_cell(
        "import numpy as np\n" + "\n".join(f"x{number} = {number} + 0.5" for number in range(INPUTS))
    )
    return made


def hit(magic: Any) -> Callable[[Path], Callable[[], None]]:
    """Prepare hits of the cell in a fresh file."""

    def prepare(place: Path) -> Callable[[], None]:
        line = f"--store {place / 'cells.h5'}"

        def call() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                magic.run_cell_magic("cache", line, CELL)

        call()
        call()
        return call

    return prepare


def plain(ipython: Any) -> Callable[[Path], Callable[[], None]]:
    """Prepare runs of the cell without the magic."""

    def prepare(_place: Path) -> Callable[[], None]:
        def call() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                ipython.run_cell(CELL)

        return call

    return prepare


def benches(*, quick: bool) -> list[Bench]:
    made, calls = shell(), 20 if quick else 100
    contestants = {
        "datastore_lab (goal 500 cells/s)": timed(once(hit(made)), calls),
        "IPython, running it": timed(plain(made), calls),
    }
    return [Bench("cell hit, 50 lines, 10 inputs", contestants, calls, "cells")]
