"""Checking a store: each part as its engine knows it, and then the rows of streams as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from datastore_lab import dtypes
from datastore_lab.errors import LabError
from datastore_lab.integrity import CHECKSUMS, RowSum
from datastore_lab.keys import show
from datastore_lab.records import Problem, Repair

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.records import ArrayInfo, Engine

_PIECE = 16 << 20


def problems(engine: Engine, key: Key) -> Iterator[Problem]:
    """Read everything at or below a node; yields what is not as it was written."""
    bad = set()
    for problem in engine.verify(key):
        bad.add(problem.key)
        yield problem
    for found in engine.keys(key):
        if found not in bad:
            yield from _rows(engine, found)


def repairs(engine: Engine, key: Key, *, accept: bool) -> Iterator[Repair]:
    """Mend everything at or below a node; yields what was done, see `Engine.repair`."""
    yield from engine.repair(key, accept=accept)
    for found in engine.keys(key) if accept else ():
        for problem in list(_rows(engine, found)):
            yield _accept(engine, problem)


def _accept(engine: Engine, problem: Problem) -> Repair:
    """Note the sum of the rows as they are now, where attributes can be changed."""
    key, name = problem.key, str(problem.name)
    stat = engine.stat(key)
    sums = dict(stat.meta[CHECKSUMS])
    try:
        sums[name] = _sum(engine, key, name, stat.arrays[name])
        engine.update(key, {CHECKSUMS: sums})
    except (LabError, KeyError) as error:
        return Repair(key, name, f"{problem.what}; a new one can't be noted: {error}", mended=False)
    return Repair(key, name, f"{problem.what}; the new one is noted now", mended=True)


def _rows(engine: Engine, key: Key) -> Iterator[Problem]:
    """Compare the rows of a stream that has ended with the sums that its writer noted."""
    stat = engine.stat(key)
    noted = stat.meta.get(CHECKSUMS)
    if stat.kind != "stream" or not isinstance(noted, Mapping):
        return
    for name, expected in noted.items():
        what = _difference(engine, key, name, stat.arrays.get(name), expected)
        if what is not None:
            yield Problem(key, name, what)


def _difference(engine: Engine, key: Key, name: str, info: ArrayInfo | None, expected: object) -> str | None:
    if info is None:
        return f"the array {name!r} of the stream {show(key)!r}, which was recorded, is not there"
    try:
        found = _sum(engine, key, name, info)
    except LabError as error:
        return str(error)
    if found is None or found == expected:
        return None
    return (
        f"the rows of {name!r} in {show(key)!r} are not those that were recorded: their checksum is {found}, "
        f"and the writer noted {expected}. Compare with another file of the same run"
    )


def _sum(engine: Engine, key: Key, name: str, info: ArrayInfo) -> str | None:
    made = RowSum(dtypes.parse(info.dtype))
    rows = info.shape[0]
    step = max(1, _PIECE // max(1, info.nbytes // max(1, rows)))
    for start in range(0, rows, step):
        made.add(engine.read(key, name, (slice(start, min(rows, start + step)),)))
    return made.text()
