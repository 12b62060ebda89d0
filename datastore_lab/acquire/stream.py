"""One device of a run: its ring, and the thread that fills it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from datastore_lab import keys
from datastore_lab.acquire import documents, ranges
from datastore_lab.acquire.ring import RingBuffer
from datastore_lab.errors import DeviceFailed, StreamError
from datastore_lab.records import Stat

if TYPE_CHECKING:
    from datastore_lab.records import Block, Device

_UNPACED_BYTES = 64_000_000
"""Ring of a device that states no rate, when the size of the rings is given in seconds."""


class Stream:
    """A device and its ring.

    Parameters
    ----------
    device : Device
    size : mapping
        One size, as `RingBuffer` takes it.
    silence : float
        Seconds without a block after which a device with a rate counts as failed.
    """

    def __init__(self, device: Device, size: Mapping[str, Any], silence: float) -> None:
        self.device = device
        self.name = device.name
        self.spec = _described(device)
        if "seconds" in size and not self.spec.meta.get("rate"):
            size = {"nbytes": _UNPACED_BYTES}
        self.ring = RingBuffer(self.spec, **size)
        self._silence = silence

    def run(self, ending: threading.Event, paused: threading.Event) -> None:
        """Read the device until `ending`; while `paused` what it gives is left out, by name.

        Raises
        ------
        DeviceFailed
            Whatever went wrong, with the reason as its cause.
        """
        try:
            self.device.start()
            try:
                self._loop(ending, paused)
            except BaseException as error:
                self._stop_after(error)
                raise
            self.device.stop()
        except DeviceFailed:
            raise
        except BaseException as error:
            raise DeviceFailed(f"the device {self.name!r} failed: {error!r}", key=self.name) from error
        finally:
            self.ring.stop_meter()

    def _stop_after(self, failure: BaseException) -> None:
        """Stop a device that failed; what fails now is noted beside the reason, and does not hide it."""
        try:
            self.device.stop()
        except Exception as error:
            failure.add_note(f"stopping the device {self.name!r} failed too: {error!r}")

    def _loop(self, ending: threading.Event, paused: threading.Event) -> None:
        heard = time.monotonic()
        while not ending.is_set():
            block = self.device.read(0.1)
            now = time.monotonic()
            if block is not None:
                self._take(block, paused)
            if block is not None and len(block.time):
                heard = time.monotonic()  # not `now`: the time that a slow writer took is not the device's
            elif now - heard > self._patience():
                raise DeviceFailed(
                    f"the device {self.name!r} fell silent: no block for {now - heard:.1f} s; "
                    "check its connection and power",
                    key=self.name,
                )

    def _take(self, block: Block, paused: threading.Event) -> None:
        try:
            if paused.is_set():
                self.ring.skip(block)
            else:
                self.ring.push(block)
        except StreamError as error:
            if self.ring.closed:
                raise
            raise DeviceFailed(f"the device {self.name!r} failed: {error}", key=self.name) from error

    def _patience(self) -> float:
        rate = self.spec.meta.get("rate")
        return self._silence + 10 / rate if rate else float("inf")

    @property
    def produced(self) -> int:
        """Samples that the device produced so far, those included that it lost or that were left out."""
        return self.ring.produced

    def rate(self) -> float:
        """Measure the samples per second, over the last three seconds or so."""
        return self.ring.measured_rate()

    def ledger(self) -> dict[str, Any]:
        """Say which samples no consumer can have."""
        gaps = self.ring.device_gaps
        return {
            "produced": self.produced,
            "device_lost": ranges.total(gaps),
            "device_gaps": gaps,
            "skipped": self.ring.skipped,
        }


def _described(device: Device) -> Stat:
    """Ask a device what it gives, and refuse what no ring and no file can take before either is made."""
    keys.check((device.name,))
    try:
        spec = device.describe()
    except Exception as error:
        raise DeviceFailed(
            f"the device {device.name!r} can't describe itself: {error!r}", key=device.name
        ) from error
    wrong = _misdescribed(spec)
    if wrong:
        raise DeviceFailed(f"the device {device.name!r} describes itself wrongly: {wrong}", key=device.name)
    documents.plain(spec.meta, f"the description of {device.name!r}")
    return spec


def _misdescribed(spec: Any) -> str | None:
    if not isinstance(spec, Stat):
        return f"describe() gives {type(spec).__name__}, not a Stat"
    rate, units = spec.meta.get("rate"), spec.meta.get("units", {})
    if rate is not None and not (isinstance(rate, Real) and 0 < float(rate) < math.inf):
        return f"meta['rate'] is {rate!r}; it must be samples per second, or None"
    if not isinstance(units, Mapping):
        return f"meta['units'] is {units!r}; it must map arrays to units"
    return None
