"""A camera that needs no hardware, paced by the clock, seeded."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.acquire.devices.faults import Faults, Line
from datastore_lab.acquire.devices.pace import Pace
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import ArrayInfo, Block, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOISE_FRAMES = 8
_MOST_FRAMES = 16
_KEPT_SECONDS = 5.0
"""What a device keeps until it is read; what is older is lost and shows as a jump."""


class SimulatedCamera:
    """A camera that watches a spot of light moving on a dim background, with the noise of a real sensor.

    Frames are uint8, array ``frame`` (n, y, x) in counts. Which frame is which follows from the seed and
    the frame's number alone.

    Parameters
    ----------
    shape : (int, int), default (480, 640)
        Rows and columns.
    rate : float, default 30
        Frames per second in the trigger mode ``free``.
    seed : int, default 0
    noise : float, default 3.0
        Standard deviation of the sensor's noise in counts.
    name : str, default "camera"
        Name of the stream.
    faults : Faults, optional
        What goes wrong, on purpose.

    Examples
    --------
    >>> camera = SimulatedCamera(shape=(48, 64))
    >>> camera.set_trigger_mode("software")
    >>> camera.set_exposure(5.0)
    >>> camera.grab_frame().shape
    (48, 64)
    """

    def __init__(
        self,
        shape: tuple[int, int] = (480, 640),
        rate: float = 30.0,
        seed: int = 0,
        noise: float = 3.0,
        *,
        name: str = "camera",
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self._line = Line(name, faults)
        self.shape = (int(shape[0]), int(shape[1]))
        self.exposure_ms = 10.0
        self.trigger_mode = "free"
        self._seed, self._noise = seed, noise
        self._pace = Pace(rate)
        self._next = 0
        self._triggers: list[int] = []  # times of software triggers that wait for their frame
        self._triggered = threading.Condition()
        self._expose()

    def describe(self) -> Stat:
        """Say what the blocks will hold."""
        info = ArrayInfo("|u1", (0, *self.shape), ("time", "y", "x"), 0, None)
        meta = {
            "rate": self._pace.rate if self.trigger_mode == "free" else None,
            "units": {"frame": "counts"},
            "device": f"simulated camera, seed {self._seed}, noise {self._noise} counts",
            "exposure_ms": self.exposure_ms,
            "trigger_mode": self.trigger_mode,
        }
        return Stat("stream", {"frame": info}, meta)

    def set_exposure(self, ms: float) -> None:
        """Set the exposure time in milliseconds: the picture's brightness follows, up to saturation."""
        if not ms > 0:
            raise ValueError(f"an exposure is a positive number of milliseconds, not {ms}")
        self.exposure_ms = float(ms)
        self._expose()

    def set_trigger_mode(self, mode: str) -> None:
        """Choose ``"free"`` (frames come at the rate) or ``"software"`` (one per `trigger`)."""
        if mode not in {"free", "software"}:
            raise ValueError(f"the trigger modes are 'free' and 'software', not {mode!r}")
        if self._pace.running:
            raise DeviceFailed(f"{self.name} is running; stop it before changing its trigger mode")
        self.trigger_mode = mode

    def trigger(self) -> None:
        """Ask for one frame, in the trigger mode ``software``."""
        if self.trigger_mode != "software":
            raise DeviceFailed(f"{self.name} runs freely; call set_trigger_mode('software') before trigger()")
        with self._triggered:
            self._triggers.append(time.time_ns())
            self._triggered.notify_all()

    def grab_frame(self) -> NDArray[Any]:
        """Take one frame and return it, uint8 of shape (y, x); starts the camera if it does not run.

        Raises
        ------
        DeviceFailed
            If none comes in time, or not the whole of one.
        """
        if not self._pace.running:
            self.start()
        if self.trigger_mode == "software":
            self.trigger()
        timeout = 1.0 + 1.0 / self._pace.rate
        block = self._line.carry(lambda left: self._frames(1, left), timeout)
        if block is None:
            why = f"within {timeout:.3g} s" if self._pace.running else "as it was stopped meanwhile"
            raise DeviceFailed(f"{self.name} gave no frame {why}; grab again", key=self.name)
        frame: NDArray[Any] = block.data["frame"][0]
        if frame.shape != self.shape:
            raise DeviceFailed(f"{self.name} gave only a part of a frame; grab again", key=self.name)
        return frame

    def start(self) -> None:
        """Begin with frame number 0."""
        self._next = 0
        self._triggers.clear()
        self._line.open()
        self._pace.start()

    def read(self, timeout: float) -> Block | None:
        """Wait for the frames that are due, up to 16; frames older than 5 s are lost."""
        return self._line.carry(lambda left: self._frames(_MOST_FRAMES, left), timeout)

    def stop(self) -> None:
        """End sampling."""
        self._pace.stop()
        self._line.close()
        with self._triggered:
            self._triggered.notify_all()

    def _frames(self, most: int, timeout: float) -> Block | None:
        times = self._due(most, timeout) if self.trigger_mode == "free" else self._asked(most, timeout)
        if times is None:
            return None
        first, self._next = self._next, self._next + len(times)
        frames = np.empty((len(times), *self.shape), np.uint8)
        for offset, frame in enumerate(frames):
            self._draw(frame, first + offset)
        return Block(first, times, {"frame": frames})

    def _due(self, most: int, timeout: float) -> NDArray[Any] | None:
        if not self._pace.wait(self._next, timeout):
            return None
        due = max(self._pace.due(), self._next + 1)  # at the very moment the two may be rounded apart
        self._next = max(self._next, due - max(1, int(_KEPT_SECONDS * self._pace.rate)))
        return self._pace.times(self._next, min(most, due - self._next))

    def _asked(self, most: int, timeout: float) -> NDArray[Any] | None:
        with self._triggered:
            self._triggered.wait_for(lambda: self._triggers or not self._pace.running, timeout)
            if not self._triggers or not self._pace.running:
                return None
            times, self._triggers = self._triggers[:most], self._triggers[most:]
            return np.array(times, dtype=np.int64)

    def _expose(self) -> None:
        """Make the noisy backgrounds and the spot once: drawing a frame is then little more than a copy."""
        random = np.random.default_rng(self._seed)
        height, width = self.shape
        light = self.exposure_ms / 10.0
        row, column = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        background = 4 + light * (20 + 12 * np.exp(-(row**2) - column**2))
        noise = random.normal(0, self._noise, (_NOISE_FRAMES, height, width)).astype(np.float32)
        self._backgrounds = np.clip(np.rint(background + noise), 0, 255).astype(np.uint8)
        radius = max(2, min(height, width) // 16)
        across = np.arange(-radius, radius + 1) / (radius / 2.5)
        spot = 180 * light * np.exp(-(across[:, None] ** 2 + across**2) / 2)
        shot = random.normal(0, 1, spot.shape) * np.sqrt(spot) / 3
        self._spot = np.clip(np.rint(spot + shot), 0, 255).astype(np.uint8)

    def _draw(self, frame: NDArray[Any], number: int) -> None:
        mixed = (number + 1) * 2654435761 % 2**32  # Knuth's multiplicative hash: no order to the eye
        background = self._backgrounds[mixed % _NOISE_FRAMES]
        shift = mixed // _NOISE_FRAMES % self.shape[0]
        frame[shift:] = background[: self.shape[0] - shift]
        frame[:shift] = background[self.shape[0] - shift :]
        rows, spot_rows = _overlap(self._where(number, 0.31), len(self._spot), self.shape[0])
        columns, spot_columns = _overlap(self._where(number, 0.2), len(self._spot), self.shape[1])
        lit = frame[rows, columns]
        lit += np.minimum(self._spot[spot_rows, spot_columns], 255 - lit)

    def _where(self, number: int, turns_per_second: float) -> float:
        """Give the spot's place along an axis, from 0 to 1: a Lissajous figure."""
        return 0.5 + 0.4 * math.sin(2 * math.pi * turns_per_second * number / self._pace.rate)


def _overlap(place: float, size: int, length: int) -> tuple[slice, slice]:
    """Give where a patch centred at `place` (0 to 1) lies on an axis, and which part of it does."""
    start = round(place * (length - 1)) - size // 2
    first, last = max(start, 0), min(start + size, length)
    return slice(first, last), slice(first - start, last - start)
