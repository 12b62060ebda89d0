"""A tunable laser and a power meter that need no hardware, paced by the clock, seeded."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from datastore_lab.acquire.devices.faults import Faults, Line
from datastore_lab.acquire.devices.layout import describe_stream
from datastore_lab.acquire.devices.pace import Pace
from datastore_lab.acquire.devices.status import Status
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import Block, Stat

_MOST_SAMPLES = 1000
_KEPT_SECONDS = 5.0
_BEST_NM, _BAND_NM = 800.0, 120.0


class _Clocked:
    """Samples by the clock, as far as they are due; what is older than 5 s is lost."""

    def __init__(
        self, name: str, rate: float, faults: Faults | None, sample: Callable[[int], dict[str, float]]
    ):
        self.pace, self.line = Pace(rate), Line(name, faults)
        self._sample, self._next = sample, 0

    def start(self) -> None:
        self._next = 0
        self.line.open()
        self.pace.start()

    def stop(self) -> None:
        self.pace.stop()
        self.line.close()

    def read(self, timeout: float) -> Block | None:
        return self.line.carry(self._due, timeout)

    def _due(self, timeout: float) -> Block | None:
        if not self.pace.wait(self._next, timeout):
            return None
        due = max(self.pace.due(), self._next + 1)
        first = max(self._next, due - max(1, int(_KEPT_SECONDS * self.pace.rate)))
        count = min(due - first, _MOST_SAMPLES)
        self._next = first + count
        rows = [self._sample(number) for number in range(first, first + count)]
        data = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return Block(first, self.pace.times(first, count), data)


class SimulatedLaser:
    """A tunable laser: it takes a while to settle on a new wavelength.

    The arrays are ``wavelength`` (n,) in nm and ``power`` (n,) in mW, float64. As a movable device it has
    bluesky's ``set``, which returns a `Status` that is done when the laser has settled.

    Parameters
    ----------
    wavelength : float, default 800
        In nm, at the beginning.
    rate : float, default 20
        Samples per second.
    seed : int, default 0
    settle : float, default 0.2
        Seconds until a new wavelength is reached.
    limits : (float, float), default (650, 1100)
        Shortest and longest wavelength in nm.
    power : float, default 100
        Greatest power in mW, reached at 800 nm.
    name : str, default "laser"
        Name of the stream.
    faults : Faults, optional
        What goes wrong, on purpose.

    Examples
    --------
    >>> laser = SimulatedLaser(settle=0.02)
    >>> laser.set_wavelength(700)
    >>> laser.wait(timeout=1.0)
    >>> laser.wavelength
    700.0
    """

    def __init__(
        self,
        wavelength: float = 800.0,
        rate: float = 20.0,
        seed: int = 0,
        *,
        settle: float = 0.2,
        limits: tuple[float, float] = (650.0, 1100.0),
        power: float = 100.0,
        name: str = "laser",
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self.limits = (float(limits[0]), float(limits[1]))
        self.settle = settle
        self._seed, self._power = seed, power
        self._lock = threading.Lock()
        self._check(wavelength)
        self._from = self._target = float(wavelength)
        self._moved = -math.inf
        self._moving: tuple[Status, threading.Timer] | None = None
        self._clocked = _Clocked(name, rate, faults, self._sample)

    def describe(self) -> Stat:
        """Say what the blocks will hold."""
        return describe_stream(
            {"wavelength": "float64", "power": "float64"},
            rate=self._clocked.pace.rate,
            units={"wavelength": "nm", "power": "mW"},
            device=f"simulated laser, seed {self._seed}",
            meta={"limits_nm": list(self.limits)},
        )

    @property
    def wavelength(self) -> float:
        """Where it is now, in nm."""
        with self._lock:
            passed = time.monotonic() - self._moved
            if passed >= self.settle:
                return self._target
            return self._target + (self._from - self._target) * math.exp(-7 * passed / self.settle)

    @property
    def power(self) -> float:
        """What it emits at this wavelength, in mW, without noise."""
        return self._power * math.exp(-(((self.wavelength - _BEST_NM) / _BAND_NM) ** 2))

    @property
    def settled(self) -> bool:
        """Whether it has reached the wavelength that was set."""
        with self._lock:
            return time.monotonic() - self._moved >= self.settle

    def set_wavelength(self, nm: float) -> None:
        """Begin to tune to a wavelength in nm; returns at once.

        Raises
        ------
        ValueError
            If it lies outside of `limits`.
        """
        self.set(nm)

    def set(self, value: float) -> Status:
        """Begin to tune to a wavelength in nm; the status is done when it is reached."""
        self._check(value)
        here = self.wavelength
        status = Status(f"tuning {self.name} to {value} nm")
        timer = threading.Timer(self.settle, status.finish)
        timer.daemon = True
        with self._lock:
            before, self._moving = self._moving, (status, timer)
            self._from, self._target, self._moved = here, float(value), time.monotonic()
        _abandon(before, f"{self.name} was sent to {value} nm before it had settled")
        timer.start()
        return status

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has settled.

        Raises
        ------
        DeviceFailed
            If it takes longer than `timeout` seconds, or was sent elsewhere or stopped meanwhile.
        """
        moving = self._moving
        if moving is not None:
            moving[0].wait(timeout)

    def start(self) -> None:
        """Begin with sample number 0."""
        self._clocked.start()

    def read(self, timeout: float) -> Block | None:
        """Wait for the samples that are due; samples older than 5 s are lost."""
        return self._clocked.read(timeout)

    def stop(self) -> None:
        """End sampling; where it is tuning it stays."""
        here = self.wavelength
        with self._lock:
            before, self._moving = self._moving, None
            if before is not None and not before[0].done:
                self._from, self._target, self._moved = here, here, -math.inf
        _abandon(before, f"{self.name} was stopped before it had settled")
        self._clocked.stop()

    def _check(self, nm: float) -> None:
        if not self.limits[0] <= nm <= self.limits[1]:
            raise ValueError(f"{self.name} goes from {self.limits[0]} to {self.limits[1]} nm, not to {nm}")

    def _sample(self, number: int) -> dict[str, float]:
        noise = np.random.default_rng((self._seed, number)).normal(0, 1, 2)
        return {"wavelength": self.wavelength + 0.01 * noise[0], "power": self.power * (1 + 0.002 * noise[1])}


def _abandon(moving: tuple[Status, threading.Timer] | None, why: str) -> None:
    if moving is not None:
        moving[1].cancel()
        moving[0].finish(DeviceFailed(why))


class SimulatedPowerMeter:
    """A power meter, in the beam of a laser or of a lamp of constant power.

    The array is ``power`` (n,), float64 in mW. Its noise follows from the seed and the sample's number.

    Parameters
    ----------
    source : SimulatedLaser or float, default 1.0
        What shines on it: anything with ``power`` in mW, or a power.
    rate : float, default 10
        Samples per second.
    seed : int, default 0
    noise : float, default 0.005
        Standard deviation of a reading, as a part of it.
    name : str, default "power"
        Name of the stream.
    faults : Faults, optional
        What goes wrong, on purpose.

    Examples
    --------
    >>> meter = SimulatedPowerMeter(5.0, seed=1)
    >>> round(meter.read_value(), 3), SimulatedPowerMeter(5.0, seed=1).read_value() == meter.read_value()
    (5.009, False)
    """

    def __init__(
        self,
        source: Any = 1.0,
        rate: float = 10.0,
        seed: int = 0,
        noise: float = 0.005,
        *,
        name: str = "power",
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self._source, self._seed, self._noise = source, seed, noise
        self._asked = 0
        self._line = Line(name, faults)
        self._clocked = _Clocked(name, rate, faults, self._sample)

    def describe(self) -> Stat:
        """Say what the blocks will hold."""
        what = f"simulated power meter, seed {self._seed}, noise {self._noise}"
        return describe_stream({"power": "float64"}, rate=self._clocked.pace.rate, units="mW", device=what)

    def read_value(self) -> float:
        """Take one reading, in mW; the first is reading number 0, whether it samples or not.

        Raises
        ------
        DeviceFailed
            If none comes in time, or none that can be read.
        """
        block = self._line.carry(self._one, 0.5)
        if block is None:
            raise DeviceFailed(f"{self.name} gave no value within 0.5 s; read again", key=self.name)
        if block.data["power"].shape != (1,):
            raise DeviceFailed(f"{self.name} gave something that is no number; read again", key=self.name)
        return float(block.data["power"][0])

    def start(self) -> None:
        """Begin with sample number 0."""
        self._line.open()
        self._clocked.start()

    def read(self, timeout: float) -> Block | None:
        """Wait for the samples that are due; samples older than 5 s are lost."""
        return self._clocked.read(timeout)

    def stop(self) -> None:
        """End sampling; single readings still work."""
        self._clocked.stop()

    def _one(self, _timeout: float) -> Block:
        number, self._asked = self._asked, self._asked + 1
        data = {"power": np.array([self._sample(number)["power"]])}
        return Block(number, np.array([time.time_ns()], dtype=np.int64), data)

    def _sample(self, number: int) -> dict[str, float]:
        power = float(getattr(self._source, "power", self._source))
        return {"power": power * (1 + self._noise * np.random.default_rng((self._seed, number)).normal())}
