"""What the processes of the cache's tests do; importable by name, so that children can run it."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np

from datastore_lab.cache import cached


def note(folder: str) -> None:
    """Leave a file of its own for every call."""
    (Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def slow(x: int, folder: str, seconds: float) -> np.ndarray:
    note(folder)
    if seconds < 0:  # until so many have been called
        wait_for(lambda: len(list(Path(folder).glob("*-*"))) >= -seconds)
    else:
        time.sleep(seconds)
    return np.full(20_000, float(x))


def ask(acknowledge, url: str, x: int, folder: str, seconds: float, lock: bool = True) -> None:
    """Ask for one result, once the others are ready too."""
    function = cached(url, ["folder", "seconds", "note", "wait_for"], deps="none", lock=lock)(slow)
    acknowledge()
    while not (Path(folder) / "go").exists():
        time.sleep(0.005)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = function(x, folder, seconds)
    assert value.tolist() == [float(x)] * 20_000
    acknowledge()


def table(x: int) -> dict:
    return {"x": x, "large": np.full(30_000, float(x)), "small": np.arange(x % 50)}


def work(acknowledge, url: str, start: int) -> None:
    """Keep one result after the other."""
    function = cached(url, deps="none")(table)
    for number in range(start, start + 100_000):
        function(number)
        acknowledge()
