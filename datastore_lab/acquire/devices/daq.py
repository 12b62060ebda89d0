"""An analogue input card that needs no hardware, paced by the clock, seeded."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.acquire.devices.faults import Faults, Line
from datastore_lab.acquire.devices.pace import Pace
from datastore_lab.records import ArrayInfo, Block, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEPT_SECONDS = 5.0
"""What a device keeps until it is read; what is older is lost and shows as a jump."""


class SimulatedDAQ:
    """An analogue input card: a sine, a square, a triangle and a noise channel, and so on in turn.

    The array ``adc`` is float64 (n, channels) in volts. Blocks come by the clock, some 50 per second, and
    exactly as many samples as the rate says: nothing drifts.

    Parameters
    ----------
    channels : int, default 4
    rate : float, default 10_000
        Samples per second and channel.
    seed : int, default 0
    noise : float, default 0.01
        Standard deviation of the noise in volts.
    name : str, default "daq"
        Name of the stream.
    drift : float, optional
        Gives the card a clock of its own, which gains so many seconds per second: ``50e-6`` is 50 ppm fast.
    faults : Faults, optional
        What goes wrong, on purpose.

    Examples
    --------
    >>> daq = SimulatedDAQ(channels=2)
    >>> daq.start()
    >>> daq.read(timeout=1.0).data["adc"].shape[1]
    2
    >>> daq.stop()
    """

    def __init__(
        self,
        channels: int = 4,
        rate: float = 10_000.0,
        seed: int = 0,
        noise: float = 0.01,
        *,
        name: str = "daq",
        drift: float | None = None,
        faults: Faults | None = None,
    ) -> None:
        if channels < 1:
            raise ValueError(f"a card has at least one channel, not {channels}")
        self.name = name
        self.channels = channels
        self.drift = drift
        self._line = Line(name, faults)
        self._seed = seed
        self._pace = Pace(rate)
        self._next = 0
        self._block = max(1, round(rate / 50))
        # an odd length: against blocks of any length the same noise meets another phase each time round
        self._noise = np.random.default_rng(seed).normal(0, noise, (100_003, channels))

    def describe(self) -> Stat:
        """Say what the blocks will hold."""
        info = ArrayInfo("<f8", (0, self.channels), ("time", "channel"), 0, None)
        meta = {
            "rate": self._pace.rate,
            "units": {"adc": "V"},
            "device": f"simulated analogue input, seed {self._seed}",
            **({} if self.drift is None else {"device_time": True}),
        }
        return Stat("stream", {"adc": info}, meta)

    def start(self) -> None:
        """Begin with sample number 0."""
        self._next = 0
        self._line.open()
        self._pace.start()

    def read(self, timeout: float) -> Block | None:
        """Wait for the samples that are due, 20 ms or more of them; samples older than 5 s are lost."""
        return self._line.carry(self._sample, timeout)

    def stop(self) -> None:
        """End sampling."""
        self._pace.stop()
        self._line.close()

    def _sample(self, timeout: float) -> Block | None:
        if not self._pace.wait(self._next + self._block - 1, timeout):
            return None
        due = self._pace.due()
        first = max(self._next, due - max(self._block, int(_KEPT_SECONDS * self._pace.rate)))
        count = min(due - first, 20 * self._block)
        self._next = first + count
        times = self._pace.times(first, count)
        return Block(first, times, {"adc": self._volts(first, count)}, self._own_clock(first, count))

    def _own_clock(self, first: int, count: int) -> NDArray[Any] | None:
        """Give ns since the card was started, by a clock that is not quite right."""
        if self.drift is None:
            return None
        elapsed = np.arange(first, first + count) * (1e9 / self._pace.rate)
        return (elapsed * (1 + self.drift)).astype(np.int64)

    def _volts(self, first: int, count: int) -> NDArray[Any]:
        number = np.arange(first, first + count)
        volts: NDArray[Any] = self._noise[number % len(self._noise)]
        for channel, shape in zip(range(self.channels), itertools.cycle(_SHAPES), strict=False):
            frequency = 5.0 * (1 + channel)
            volts[:, channel] += shape(number * (frequency / self._pace.rate) % 1.0)
        return volts


def _square(phase: NDArray[Any]) -> NDArray[Any]:
    return np.where(phase < 0.5, 1.0, -1.0)


def _sine(phase: NDArray[Any]) -> NDArray[Any]:
    wave: NDArray[Any] = np.sin(2 * np.pi * phase)
    return wave


def _triangle(phase: NDArray[Any]) -> NDArray[Any]:
    wave: NDArray[Any] = 4 * np.abs(phase - 0.5) - 1
    return wave


def _flat(phase: NDArray[Any]) -> NDArray[Any]:
    return np.zeros_like(phase)


_SHAPES = (_sine, _square, _triangle, _flat)
