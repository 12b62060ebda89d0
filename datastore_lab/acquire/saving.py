"""Writing what a ring still holds: what was before an event that nobody could foresee."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire import documents, ranges
from datastore_lab.acquire.target import Mark, Target, marks_block
from datastore_lab.errors import StreamError

if TYPE_CHECKING:
    from datastore_lab.acquire.stream import Stream
    from datastore_lab.records import Block


def save_last(
    streams: Sequence[Stream], marks: Sequence[Mark], start: Mapping[str, Any], seconds: float, to: Any
) -> Any:
    """Write the last seconds of each stream; see `Run.save_last`.

    Examples
    --------
    >>> from datastore_lab import SimulatedDAQ, acquire, open_store
    >>> with acquire(SimulatedDAQ(rate=1000), ring="10 s") as run:  # nothing is written
    ...     run.wait(0.3)
    ...     store = run.save_last("5 s", open_store("memory://"))
    False
    >>> store.stat("daq").arrays["adc"].shape[0] > 100
    True
    """
    now = time.time_ns()
    since = now - round(seconds * 1e9)
    blocks = {stream.name: stream.ring.recent(since) for stream in streams}
    if not any(blocks.values()):
        raise StreamError(f"nothing came in the last {seconds:g} s, so there is nothing to save")
    target = Target(to, seconds)
    target.open()
    try:
        target.check([*blocks, documents.MARKS])
        target.put(start, {stream.name: stream.spec for stream in streams}, _pieces(blocks, marks, since))
        ledgers = {name: _ledger(found, since, seconds) for name, found in blocks.items()}
        target.stop(None, ledgers)
    except BaseException as error:
        target.abandon(error)
        raise
    return to


def _pieces(
    blocks: Mapping[str, Sequence[Block]], marks: Sequence[Mark], since: int
) -> list[tuple[str, Block]]:
    recent = [mark for mark in marks if mark.time >= since]
    found = [(name, block) for name, each in blocks.items() for block in each]
    return [*found, (documents.MARKS, marks_block(0, recent))] if recent else found


def _ledger(blocks: Sequence[Block], since: int, seconds: float) -> dict[str, Any]:
    """Say which samples were saved, and which of those between them are not there."""
    gaps: list[ranges.Range] = []
    for before, after in itertools.pairwise(blocks):
        ranges.add(gaps, before.first + len(before.time), after.first - 1)
    begins = int(blocks[0].time[0]) if blocks else None
    return {
        "written": sum(len(block.time) for block in blocks),
        "gaps": gaps,
        "lost": ranges.total(gaps),
        "saved_since": since,
        "saved_seconds": seconds,
        "first_time": begins,
    }
