"""Reading a whole record, which takes several calls of an engine, as it was at one commit."""

from __future__ import annotations

import functools
from typing import TypeGuard

from datastore_lab import media
from datastore_lab.errors import EngineError, LabError
from datastore_lab.keys import Key, show
from datastore_lab.records import Engine, ReadsWhole, Record, gather

_ATTEMPTS = 20


def read_record(engine: Engine, key: Key) -> Record:
    """Read a record beside a writer, who may replace it between two arrays.

    What was read counts if there was no commit meanwhile, if it can only have grown, or if it was read twice
    alike: then it was so for a moment in between, and the commits were of other records.

    Raises
    ------
    EngineError
        If a writer in another process replaces the record faster than it can be read.
    """
    if reads_whole(engine) and (found := engine.read_whole(key)) is not None:
        return found
    return _read_large(engine, key)


def reads_whole(engine: Engine) -> TypeGuard[ReadsWhole]:
    """Ask its class whether an engine reads records in one step: what wraps one sees every call then."""
    return issubclass(type(engine), ReadsWhole)


def _read_large(engine: Engine, key: Key) -> Record:
    earlier = None
    for _ in range(_ATTEMPTS):
        before = engine.revision()
        try:
            found = _read(engine, key)
        except LabError:  # what was described may have been replaced before it was read
            if engine.revision() == before:
                raise
            continue
        if engine.revision() == before or _grew(engine, key, found) or _same(found, earlier):
            return found
        earlier = found
    if not engine.writable:
        raise EngineError(
            f"{show(key)!r} in {engine.url} changes faster than it can be read; try again", key=key
        )
    with engine.transaction():  # keeps the other threads of this process from writing
        return _read(engine, key)


def _read(engine: Engine, key: Key) -> Record:
    """Read a record, each array as long as it was described."""
    return gather(engine.stat(key), functools.partial(engine.read, key))


def _grew(engine: Engine, key: Key, found: Record) -> bool:
    """Whether nothing but new rows can have come to a record since it was read."""
    if found.kind != "stream":
        return False
    stat = engine.stat(key)
    return stat.arrays.keys() == found.arrays.keys() and all(
        info.shape[:1] >= found.arrays[name].shape[:1] for name, info in stat.arrays.items()
    )


def _same(found: Record, earlier: Record | None) -> bool:
    if earlier is None or found.kind != earlier.kind or found.arrays.keys() != earlier.arrays.keys():
        return False
    pairs = [(array, earlier.arrays[name]) for name, array in found.arrays.items()]
    return media.to_json(found.meta) == media.to_json(earlier.meta) and all(
        (one.dtype, one.shape, media.checksum(one)) == (two.dtype, two.shape, media.checksum(two))
        for one, two in pairs
    )
