"""What goes wrong with instruments, on purpose and reproducibly: for simulated devices."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import DeviceFailed
from datastore_lab.records import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = ("disconnect", "timeout", "drop", "garbage")
_STEP = 0x9E3779B97F4A7C15

Chance = float | Collection[int]
"""A probability per sample, or the numbers of the samples."""


class Faults:
    """Which samples something happens to: by probability from a seed, or by their numbers.

    Parameters
    ----------
    timeout : float or collection of int, default 0
        Before these samples the device is silent for `silence` seconds.
    drop : float or collection of int, default 0
        These samples are lost: the sequence numbers jump.
    disconnect : float or collection of int, default 0
        At these samples the connection breaks: `DeviceFailed`, until the device is started again.
    garbage : float or collection of int, default 0
        Of these samples only a part arrives, so that they are not what was described.
    seed : int, default 0
        Equal seeds give equal faults, however the samples come in blocks.
    silence : float, default 1
        Seconds that a timeout lasts.

    Examples
    --------
    >>> faults = Faults(drop=0.25, disconnect=[5], seed=1)
    >>> faults.hits("drop", 0, 8).tolist()
    [True, False, False, False, False, False, True, False]
    >>> faults.hits("disconnect", 4, 3).tolist()
    [False, True, False]
    """

    def __init__(
        self,
        *,
        timeout: Chance = 0.0,
        drop: Chance = 0.0,
        disconnect: Chance = 0.0,
        garbage: Chance = 0.0,
        seed: int = 0,
        silence: float = 1.0,
    ) -> None:
        self.seed, self.silence = seed, silence
        self._chances: dict[str, Chance] = {}
        for kind, chance in zip(_KINDS, (disconnect, timeout, drop, garbage), strict=True):
            if isinstance(chance, (int, float)) and not 0 <= chance <= 1:
                raise ValueError(f"{kind}={chance} is no probability between 0 and 1; give numbers as a list")
            if isinstance(chance, Collection) or chance:
                self._chances[kind] = chance

    def hits(self, kind: str, first: int, count: int) -> NDArray[np.bool_]:
        """Say which of the samples from `first` on a kind of fault happens to; bool of shape (count,)."""
        chance = self._chances.get(kind, 0.0)
        numbers = np.arange(first, first + count)
        if isinstance(chance, Collection):
            return np.isin(numbers, list(chance))
        hit: NDArray[np.bool_] = self._uniform(kind, numbers) < chance
        return hit

    def first_in(self, first: int, count: int) -> tuple[int, str] | None:
        """Give the first fault among these samples: where it is, counted from `first`, and its kind."""
        found = []
        for kind in self._chances:
            hits = self.hits(kind, first, count)
            if hits.any():
                found.append((int(hits.argmax()), kind))
        return min(found, key=lambda fault: (fault[0], _KINDS.index(fault[1])), default=None)

    def _uniform(self, kind: str, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """Give numbers from 0 to 1 that follow from seed, kind and sample alone: splitmix64 as a hash."""
        start = np.uint64((self.seed * len(_KINDS) + _KINDS.index(kind) + 1) * 0xD1342543DE82EF95 % 2**64)
        with np.errstate(over="ignore"):
            mixed = start + numbers.astype(np.uint64) * np.uint64(_STEP)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64


class Line:
    """The line between an instrument and its reader, on which the faults happen.

    Parameters
    ----------
    name : str
        Of the device, for messages.
    faults : Faults, optional
        Without any everything is passed on.
    """

    def __init__(self, name: str, faults: Faults | None) -> None:
        self._name, self._faults = name, faults
        self._waiting: deque[Block] = deque()
        self._closed = threading.Event()
        self._silent_until = 0.0
        self._passed = -1  # the last sample whose fault has happened
        self._broken: int | None = None

    def open(self) -> None:
        """Begin anew, with all faults still to come."""
        self._waiting.clear()
        self._closed.clear()
        self._silent_until, self._passed, self._broken = 0.0, -1, None

    def close(self) -> None:
        """Wake whoever waits."""
        self._closed.set()

    def carry(self, read: Callable[[float], Block | None], timeout: float) -> Block | None:
        """Pass on what an instrument gives, or what becomes of it.

        Raises
        ------
        DeviceFailed
            Once it is disconnected.
        """
        if self._faults is None:
            return read(timeout)
        ends = time.monotonic() + timeout
        while not self._closed.is_set():
            left = max(0.0, ends - time.monotonic())
            silence = self._silent_until - time.monotonic()
            if silence > 0 and (self._closed.wait(min(silence, left)) or silence > left):
                return None
            self._check()
            block = self._waiting.popleft() if self._waiting else read(max(0.0, ends - time.monotonic()))
            if block is None:
                return None
            passed = self._pass(block, self._faults)
            if passed is not None:
                return passed
        return None

    def _check(self) -> None:
        if self._broken is not None:
            raise DeviceFailed(
                f"the device {self._name!r} was disconnected at sample {self._broken} (simulated); "
                "check its cable, and start it again",
                key=self._name,
            )

    def _pass(self, block: Block, faults: Faults) -> Block | None:
        skip = max(0, self._passed + 1 - block.first)
        found = faults.first_in(block.first + skip, len(block.time) - skip)
        if found is None:
            return block
        offset, kind = found[0] + skip, found[1]
        if offset:
            self._waiting.appendleft(_part(block, offset, None))
            return _part(block, 0, offset)
        self._passed = block.first
        if kind == "disconnect":
            self._broken = block.first
        elif kind == "timeout":
            self._silent_until = time.monotonic() + faults.silence
            self._waiting.appendleft(block)
        else:
            if len(block.time) > 1:
                self._waiting.appendleft(_part(block, 1, None))
            return _torn(_part(block, 0, 1)) if kind == "garbage" else None
        return None


def _part(block: Block, start: int, stop: int | None) -> Block:
    rows = slice(start, stop)
    own = None if block.device_time is None else block.device_time[rows]
    data = {name: array[rows] for name, array in block.data.items()}
    return Block(block.first + start, block.time[rows], data, own)


def _torn(block: Block) -> Block:
    """Cut every array short, as a transfer that was interrupted."""
    rows = {name: array.reshape(len(array), -1) for name, array in block.data.items()}
    return block._replace(data={name: array[:, : array.shape[1] // 2] for name, array in rows.items()})
