"""Thresholds that are watched while a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datastore_lab.acquire.ring import RingBuffer
    from datastore_lab.acquire.stream import Stream
    from datastore_lab.records import Block

ACTIONS = ("mark", "pause", "stop")


@dataclass(frozen=True)
class Alarm:
    """What is to happen when a quantity leaves its range.

    Parameters
    ----------
    stream : str
        Name of the device.
    array : str
        Name of its array; of an array with several values per sample any one is enough.
    above, below : float, optional
        Limits, in the array's unit; at least one. NaN is beyond none.
    action : {"mark", "pause", "stop"}, default "mark"
        Each also makes a mark. It is done each time the quantity leaves the range.
    quiet : float, default 1
        Seconds after which it is done again at the earliest: noise about a limit crosses it all the time.

    Examples
    --------
    >>> Alarm("daq", "adc", above=2.5, action="stop")
    Alarm(stream='daq', array='adc', above=2.5, below=None, action='stop', quiet=1.0)
    """

    stream: str
    array: str
    above: float | None = None
    below: float | None = None
    action: str = "mark"
    quiet: float = 1.0

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise ValueError(f"the alarm of {self.stream}.{self.array} needs a limit: above= or below=")
        if self.action not in ACTIONS:
            raise ValueError(f"an alarm can {', '.join(map(repr, ACTIONS))}, not {self.action!r}")

    def check(self, streams: Sequence[Stream]) -> None:
        """Refuse an alarm of something that is not recorded, or that has no order.

        Raises
        ------
        ValueError
        """
        specs = {stream.name: stream.ring.spec for stream in streams}
        arrays = specs[self.stream].arrays if self.stream in specs else {}
        if self.array not in arrays:
            known = [f"{name}.{array}" for name, spec in specs.items() for array in spec.arrays]
            raise ValueError(f"there is no {self.stream}.{self.array} to watch; there are {', '.join(known)}")
        if arrays[self.array].dtype[1:2] not in {"i", "u", "f", "b"}:
            raise ValueError(f"{self.stream}.{self.array} is {arrays[self.array].dtype}, which has no order")

    def beyond(self, block: Block) -> Any:
        """Say of each sample whether it is outside: bool, shape (n,)."""
        rows = block.data[self.array]
        outside = np.zeros(rows.shape, bool)
        if self.above is not None:
            outside |= rows > self.above
        if self.below is not None:
            outside |= rows < self.below
        return outside.reshape(len(rows), -1).any(axis=1)

    def describe(self, block: Block, at: int) -> str:
        """Say what was seen at a sample of a block."""
        values = np.asarray(block.data[self.array][at]).reshape(-1)
        value = values[self._first_outside(values)]
        high = self.above is not None and value > self.above
        limit = f"above {self.above:g}" if high else f"below {self.below:g}"
        return f"{self.stream}.{self.array} is {value:g}, {limit}, at sample {block.first + at}"

    def _first_outside(self, values: Any) -> int:
        above = self.above is not None and values > self.above
        below = self.below is not None and values < self.below
        return int(np.argmax(np.logical_or(above, below)))


class Watch:
    """Watches the alarms of one stream, in a thread of its own.

    Parameters
    ----------
    ring : RingBuffer
    alarms : sequence of Alarm
    act : callable
        Takes an action and a text.
    """

    def __init__(self, ring: RingBuffer, alarms: Sequence[Alarm], act: Callable[[str, str], None]) -> None:
        self._alarms, self._act = list(alarms), act
        self._cursor = ring.cursor(name="alarms")
        self._outside = [False] * len(self._alarms)
        self._acted: list[int | None] = [None] * len(self._alarms)

    def run(self) -> None:
        """Look at all samples until the ring is closed."""
        with self._cursor as cursor:
            while (block := cursor.read(timeout=None)) is not None:
                for number, alarm in enumerate(self._alarms):
                    self._look(number, alarm, block)

    @property
    def unwatched(self) -> int:
        """Samples that came too fast to be looked at."""
        return self._cursor.lost

    def _look(self, number: int, alarm: Alarm, block: Block) -> None:
        outside = alarm.beyond(block)
        before = np.concatenate(([self._outside[number]], outside[:-1]))
        for at in np.flatnonzero(outside & ~before).tolist():
            now, last = int(block.time[at]), self._acted[number]
            if last is None or now - last >= alarm.quiet * 1e9:
                self._acted[number] = now
                self._act(alarm.action, alarm.describe(block, at))
        self._outside[number] = bool(outside[-1])


def check_alarms(alarms: Sequence[Alarm], streams: Sequence[Stream]) -> None:
    """Refuse what can't be watched."""
    for alarm in alarms:
        if not isinstance(alarm, Alarm):
            raise TypeError(f"alarms are of the class Alarm, not {type(alarm).__name__}")
        alarm.check(streams)


def watches(
    alarms: Sequence[Alarm], streams: Mapping[str, Stream], act: Callable[[str, str], None]
) -> list[Watch]:
    """Make a watch for each stream that has alarms."""
    watched = {alarm.stream: [each for each in alarms if each.stream == alarm.stream] for alarm in alarms}
    return [Watch(streams[name].ring, each, act) for name, each in watched.items()]
