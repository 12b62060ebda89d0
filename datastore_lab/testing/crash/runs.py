"""A run to record, and what an engine holds after it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from datastore_lab import media
from datastore_lab.records import ArrayInfo, Record, Stat


def digest(engine: Any) -> dict[Any, Any]:
    """Say all that an engine holds, in a form that can be compared."""
    found = {}
    for key in list(engine.keys()):
        stat = engine.stat(key)
        arrays = {
            name: (info.dtype, info.shape, info.dims, media.checksum(engine.read(key, name)))
            for name, info in stat.arrays.items()
        }
        found[key] = (stat.kind, arrays, media.to_json(stat.meta, sort=True))
    return found


def operations(count: int = 100, seed: int = 0) -> list[Callable[[Any, dict[str, Any]], None]]:
    """Make a run: writes, replacements, updates, moves, deletions, transactions, growing records.

    Each operation takes an engine and a dictionary in which the run keeps its open streams; run on two
    engines, it does the same to both.
    """
    chance = random.Random(seed)  # noqa: S311 (a reproducible choice, no secret)
    keys: list[tuple[str, ...]] = []
    made: list[Callable[[Any, dict[str, Any]], None]] = []
    while len(made) < count:
        kind = chance.choices(["write", "update", "move", "delete", "rows", "several"], [5, 2, 1, 1, 3, 1])[0]
        if kind == "rows":
            made.append(_rows(f"stream {chance.randrange(2)}", chance.randrange(1, 400)))
        elif kind == "several":
            made.append(_several([_write(_pick(keys, chance), chance.randrange(2**16)) for _ in range(3)]))
        elif kind == "write" or len(keys) < 3:
            made.append(_write(_pick(keys, chance), chance.randrange(2**16)))
        else:
            made.append(_change(kind, keys, chance))
    return made


def _pick(keys: list[tuple[str, ...]], chance: random.Random) -> tuple[str, ...]:
    key = (f"group {chance.randrange(3)}", f"item {chance.randrange(4)}")
    if key not in keys:
        keys.append(key)
    return key


def _write(key: tuple[str, ...], seed: int) -> Callable[[Any, dict[str, Any]], None]:
    noise = np.random.default_rng(seed)
    shape = (int(noise.integers(0, 60)), int(noise.integers(1, 20)))
    arrays = {"data": noise.integers(0, 9, shape), "label": np.array([f"µ{seed}"])}
    record = Record("array", arrays, {"seed": seed, "note": "n" * (seed % 700)}, {"data": ("row", "column")})
    return lambda engine, _: engine.write(key, record)


def _change(
    kind: str, keys: list[tuple[str, ...]], chance: random.Random
) -> Callable[[Any, dict[str, Any]], None]:
    key, number = chance.choice(keys), chance.randrange(10**6)
    if kind == "update":
        return lambda engine, _: engine.update(key, {"number": number, "list": [number] * (number % 50)})
    keys.remove(key)
    if kind == "delete":
        return lambda engine, _: engine.delete(key)
    target = ("moved", f"item {number}")
    keys.append(target)
    return lambda engine, _: engine.move(key, target)


def _several(
    steps: list[Callable[[Any, dict[str, Any]], None]],
) -> Callable[[Any, dict[str, Any]], None]:
    def run(engine: Any, streams: dict[str, Any]) -> None:
        with engine.transaction():
            for step in steps:
                step(engine, streams)

    return run


def _rows(name: str, count: int) -> Callable[[Any, dict[str, Any]], None]:
    arrays = {
        "time": ArrayInfo("<i8", (0,), ("time",), 0, None),
        "adc": ArrayInfo("<f4", (0, 3), ("time", "channel"), 0, None),
    }

    def run(engine: Any, streams: dict[str, Any]) -> None:
        if name not in streams:
            streams[name] = engine.append((name,), Stat("stream", arrays, {"rate": 100.0}))
            return
        rows = np.arange(count)
        streams[name].extend({"time": rows, "adc": np.repeat(rows[:, None], 3, 1).astype("f4")})
        streams[name].flush()

    return run
