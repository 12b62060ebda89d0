"""Single flipped bits, and whether a store ever lies about them.

A store is filled, closed and known by heart (`learn`); after a bit of its files was flipped, everything in
it must be what it was, or raise one of the errors of this package (`compare`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import media
from datastore_lab.errors import Corrupt, LabError, NotFound
from datastore_lab.keys import show
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing import samples

if TYPE_CHECKING:
    from datastore_lab.keys import Key

_STREAM = {
    "time": ArrayInfo("<i8", (0,), ("time",), 0, None),
    "x": ArrayInfo("<f8", (0,), ("time",), 0, None),
}


class Flip(NamedTuple):
    """One bit: in which file below the folder, and which of its bits."""

    file: str
    bit: int


def fill(engine: Any, *, big: bool) -> None:
    """Write what a store can hold: every type, streams, groups with attributes, odd names, and much at once.

    Parameters
    ----------
    engine : Engine
    big : bool
        Whether to write an array of 3 MB, instead of everything that is small.
    """
    with engine.transaction():
        engine.update((), {"title": "bench"})
        if big:
            noise = np.random.default_rng(0).standard_normal((750, 512))
            engine.write(
                ("big",), Record("array", {"data": noise}, {"unit": "V"}, {"data": ("row", "column")})
            )
            return
        for start in range(0, len(samples.DTYPES), 8):
            types = enumerate(samples.DTYPES[start : start + 8], start)
            arrays = {f"a{number}": samples.array(dtype, (2, 3), number) for number, dtype in types}
            engine.write(("types", str(start)), Record("array", arrays, {}, {}))
        for number, meta in enumerate(samples.METAS[:7]):
            engine.write(("metas", str(number)), Record("value", {}, meta, {}))
        for part in samples.PARTS[::5]:
            engine.write(("odd", part), Record("array", {part: np.arange(3.0)}, {"name": part}, {}))
        engine.update(("odd",), {"note": "names that are hard to keep", "count": 9})
        engine.write(("text",), Record("array", {"t": np.array(["a", "µV"] * 40)}, {}, {"t": ("line",)}))
    fill_rows(engine, big=False)


def fill_rows(engine: Any, *, big: bool) -> None:
    """Append what a store for appending can hold: streams, ended or not."""
    for name, rows in [("s", 150_000)] if big else [("s", 100), ("t", 7), ("u", 0)]:
        stream = engine.append((name,), Stat("stream", _STREAM, {"rate": 10.0, "units": {"x": "V"}}))
        for first in range(0, rows, max(1, rows // 3)):
            time = np.arange(first, min(rows, first + max(1, rows // 3)))
            stream.extend({"time": time, "x": np.random.default_rng(first).random(len(time))})
            stream.flush()
        stream.close({"lost": 0} if name == "s" else {})


def plan(folder: Path, times: int, seed: int = 0) -> list[Flip]:
    """Choose bits: half of them spread over all bytes, half over all files."""
    choice = random.Random(seed)  # noqa: S311 (a repeatable choice)
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in files(folder)}
    names = [name for name in sizes if sizes[name]]
    made = []
    for number in range(times):
        weights = [sizes[name] if number % 2 else 1 for name in names]
        name = choice.choices(names, weights)[0]
        made.append(Flip(name, choice.randrange(sizes[name] * 8)))
    return made


def files(folder: Path) -> list[Path]:
    """List the files of a store in a fixed order."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def flip(folder: Path, one: Flip) -> None:
    """Flip a bit; a second time restores it."""
    with (folder / one.file).open("r+b") as file:
        file.seek(one.bit // 8)
        old = file.read(1)[0]
        file.seek(one.bit // 8)
        file.write(bytes([old ^ 1 << one.bit % 8]))


class Known(NamedTuple):
    """What a store held.

    Attributes
    ----------
    keys : list of Key
    children : dict of Key to list of str
        Of every node, records and groups.
    parts : dict of (Key, str or None) to object
        The description of each node, and the values of each array.
    """

    keys: list[Key]
    children: dict[Key, list[str]]
    parts: dict[tuple[Key, str | None], Any]


def learn(engine: Any) -> Known:
    """Read everything that a store holds."""
    keys = list(engine.keys())
    nodes = sorted({key[:depth] for key in keys for depth in range(len(key) + 1)} | {()})
    parts: dict[tuple[Key, str | None], Any] = {}
    for key in nodes:
        stat = engine.stat(key)
        parts[key, None] = _description(stat)
        parts |= {(key, name): _values(engine.read(key, name)) for name in stat.arrays}
    return Known(keys, {key: list(engine.children(key)) for key in nodes}, parts)


def _description(stat: Stat) -> Any:
    arrays = {name: (info.dtype, info.shape, info.dims) for name, info in stat.arrays.items()}
    return stat.kind, arrays, media.to_json(stat.meta, sort=True)


def _values(array: Any) -> Any:
    raw = array.tolist() if array.dtype.kind == "T" else array.tobytes()
    return str(array.dtype), array.shape, raw


class Found(NamedTuple):
    """What a second look at a store gave.

    Attributes
    ----------
    wrong : dict of (Key, str or None) to str
        Lies: other values, items that are missing or too many, errors that are not of this package.
    refused : set of (Key, str or None)
        Parts that could not be read, with an error that says so.
    """

    wrong: dict[tuple[Key, str | None], str]
    refused: set[tuple[Key, str | None]]


def compare(engine: Any, known: Known) -> Found:
    """Look at everything again.

    A group that is `Corrupt` may be listed among the keys: nobody can say any more that it holds no record.
    """
    found = Found({}, set())
    for key, names in known.children.items():
        look = lambda key=key: sorted(engine.children(key))  # noqa: E731
        _check(found, (key, None), f"the children of {show(key)!r}", look, sorted(names))
    for (key, name), expected in known.parts.items():
        what = f"{show(key)!r}" if name is None else f"{name!r} of {show(key)!r}"
        _check(found, (key, name), what, _reading(engine, key, name), expected)
    groups = {key for key, name in found.refused if name is None} - set(known.keys)
    doubtful = {key for key in groups if _is_corrupt(engine, key)}
    _check(found, ((), None), "the keys", lambda: sorted(set(engine.keys()) - doubtful), sorted(known.keys))
    return found


def _is_corrupt(engine: Any, key: Key) -> bool:
    try:
        engine.stat(key)
    except Corrupt:
        return True
    except LabError:
        return False
    return False


def _reading(engine: Any, key: Key, name: str | None) -> Callable[[], Any]:
    if name is None:
        return lambda: _description(engine.stat(key))
    return lambda: _values(engine.read(key, name))


def _check(
    found: Found, part: tuple[Key, str | None], what: str, look: Callable[[], Any], expected: Any
) -> None:
    try:
        seen = look()
    except NotFound as error:
        found.wrong[part] = f"{what}: said not to be there ({error})"
    except LabError:
        found.refused.add(part)
    except Exception as error:
        found.wrong[part] = f"{what}: {error!r}"
    else:
        if seen != expected:
            found.wrong[part] = f"{what}: {seen!r:.300} instead of {expected!r:.300}"


def reported(engine: Any) -> Iterator[str]:
    """Yield what a store says about itself when asked to verify."""
    try:
        for problem in engine.verify():
            yield f"{show(problem.key)!r}, {problem.name!r}: {problem.what}"
    except LabError as error:
        yield str(error)
