"""How a device's clock and that of the host run against each other."""

from __future__ import annotations

import math
from typing import Any

_BIN = 1_000_000_000
_LEAST = 3


class ClockFit:
    """Estimates offset and drift of a clock from when its blocks arrive.

    A block arrives late by what transport and scheduling take, which is never less than nothing. So of each
    second only the block counts that was least late, and a line is laid through these by least squares.

    Parameters
    ----------
    source : {"device_time", "sequence"}
        What the device's time is: its own clock, or the number of samples at its nominal rate.

    Examples
    --------
    >>> fit = ClockFit("device_time")
    >>> for second in range(10):  # a clock that is 5 ms behind and loses 20 us each second
    ...     fit.add(second * 10**9, second * 10**9 + 5_000_000 + second * 20_000)
    >>> found = fit.result()
    >>> found["offset"], round(found["drift_ppm"], 1), found["points"]
    (5000000, 20.0, 10)
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._reference: tuple[int, int] | None = None  # device and host time of the first block
        self._bin = 0
        self._best: tuple[int, int] | None = None  # lateness, device time; both since the reference
        self._count = 0
        self._mean_x = self._mean_y = self._xx = self._xy = self._yy = 0.0

    def add(self, device: int, host: int) -> None:
        """Take in a block: the device's time of its newest sample and when it arrived, in ns."""
        if self._reference is None:
            self._reference = device, host
            self._bin = host // _BIN
        if host // _BIN != self._bin:
            self._settle()
            self._bin = host // _BIN
        passed = device - self._reference[0]
        late = host - self._reference[1] - passed
        if self._best is None or late < self._best[0]:
            self._best = late, passed

    def result(self) -> dict[str, Any] | None:
        """Give what was found; None if nothing came.

        Returns
        -------
        dict
            ``{"source": text, "reference": the device's time of its first block in ns, "offset": what is to
            be added to it for UTC by the host's clock, in ns, "drift_ppm": by how much the device's clock is
            slower than the host's, in millionths, or None if too little came to tell, "jitter": standard
            deviation of the points from the line in s, or None, "points": how many there were}``.
        """
        if self._reference is None:
            return None
        self._settle()
        device, host = self._reference
        slope = self._xy / self._xx if self._count >= _LEAST and self._xx > 0 else None
        at_reference = self._mean_y - (slope or 0.0) * self._mean_x
        left = max(0.0, self._yy - (slope or 0.0) * self._xy)
        return {
            "source": self.source,
            "reference": device,
            "offset": host - device + round(at_reference),
            "drift_ppm": None if slope is None else slope * 1e6,
            "jitter": None if slope is None else math.sqrt(left / self._count) / 1e9,
            "points": self._count,
        }

    def _settle(self) -> None:
        """Add the best of a second to the line (sums that stay exact, after Welford)."""
        if self._best is None:
            return
        y, x = self._best
        self._best = None
        self._count += 1
        off_x, off_y = x - self._mean_x, y - self._mean_y
        self._mean_x += off_x / self._count
        self._mean_y += off_y / self._count
        self._xx += off_x * (x - self._mean_x)
        self._xy += off_x * (y - self._mean_y)
        self._yy += off_y * (y - self._mean_y)
