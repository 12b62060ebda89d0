"""What a consumer that fell behind has kept aside: in memory, up to a limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from datastore_lab.records import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.acquire.core import Core

Parts = Sequence[Mapping[str, "NDArray[Any]"]]
"""Columns of consecutive samples, as they lie in the ring: in one part or in two."""

Span = tuple[int, int]
"""Sequence number of the first sample, and how many."""


class Backlog(Protocol):
    """Samples that are older than the cursor's place in the ring.

    `put` is called by the producer without the ring's lock; all else with it.
    """

    samples: int
    most: int
    """Samples that `put` takes at once."""

    def put(self, span: Span, parts: Parts) -> Any:
        """Write samples down; gives what `keep` needs.

        Raises
        ------
        LabError
            If there is no room for them.
        """
        ...

    def keep(self, span: Span, token: Any) -> list[Span]:
        """Count what `put` wrote as there; gives what had to go for it."""
        ...

    def pop(self, most: int | None) -> tuple[Span, Callable[[], Block]]:
        """Take out the oldest samples; what is given with them reads them, without the lock.

        That raises a `LabError` if they can't be read.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Memory:
    """A backlog in memory.

    Parameters
    ----------
    core : Core
    limit : int
        Bytes that it may take; beyond them the oldest are lost.
    """

    def __init__(self, core: Core, limit: int) -> None:
        self._core = core
        self._room = limit // core.columns.sample_nbytes
        self._blocks: deque[Block] = deque()
        self.samples = 0
        self.most = max(1, self._room)

    def put(self, span: Span, parts: Parts) -> Block:
        """Copy samples."""
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self._core.block(span[0], rows)

    def keep(self, span: Span, token: Block) -> list[Span]:
        """Add samples; gives those that are too many."""
        self._blocks.append(token)
        self.samples += span[1]
        gone = []
        while self.samples > self._room:
            block = self._blocks.popleft()
            count = min(self.samples - self._room, len(block.time))
            gone.append((block.first, count))
            self.samples -= count
            if count < len(block.time):
                self._blocks.appendleft(part_of(block, count, len(block.time)))
        return gone

    def pop(self, most: int | None) -> tuple[Span, Callable[[], Block]]:
        """Take out the oldest samples."""
        block = self._blocks.popleft()
        if most is not None and most < len(block.time):
            self._blocks.appendleft(part_of(block, most, len(block.time)))
            block = part_of(block, 0, most)
        self.samples -= len(block.time)
        return (block.first, len(block.time)), lambda: block

    def close(self) -> None:
        """Let go of everything."""


def part_of(block: Block, start: int, stop: int) -> Block:
    """Give some samples of a block, without a copy."""
    data = {name: rows[start:stop] for name, rows in block.data.items()}
    clock = None if block.device_time is None else block.device_time[start:stop]
    return Block(block.first + start, block.time[start:stop], data, clock)
