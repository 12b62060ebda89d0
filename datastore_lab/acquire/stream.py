"""One device of a run: its ring, and the thread that fills it."""

from __future__ import annotations

import math
import operator
import threading
import time
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import keys
from datastore_lab.acquire import documents, ranges
from datastore_lab.acquire.clock import ClockFit
from datastore_lab.acquire.ring import RingBuffer
from datastore_lab.errors import DeviceFailed, StreamError
from datastore_lab.records import Block, Stat

if TYPE_CHECKING:
    from datastore_lab.records import Device

_UNPACED_BYTES = 64_000_000
"""Ring of a device that states no rate, when the size of the rings is given in seconds."""

_HEALTHY = 60.0
"""Seconds after which a device that was started again counts as well."""

Report = Callable[[str, str], None]
"""Notes an event and its text in the stream of marks."""


class Patience(NamedTuple):
    """How long a device is waited for, and how often it is tried again.

    Attributes
    ----------
    silence : float
        Seconds without a block after which a device with a rate counts as failed.
    retries : int
        How often it is started again after a failure, before it is given up.
    delay : float
        Seconds between a failure and the next start.
    """

    silence: float
    retries: int
    delay: float


class Stream:
    """A device and its ring.

    Parameters
    ----------
    device : Device
    size : mapping
        One size, as `RingBuffer` takes it, and its path if it has one.
    patience : Patience
    """

    def __init__(self, device: Device, size: Mapping[str, Any], patience: Patience) -> None:
        self.device = device
        self.name = device.name
        self.spec = _described(device)
        if "seconds" in size and not self.spec.meta.get("rate"):
            size = {**size, "nbytes": _UNPACED_BYTES}
            del size["seconds"]
        self.ring = RingBuffer(self.spec, **size)
        self.most: int | None = None
        self.failure: DeviceFailed | None = None
        self.ended = threading.Event()
        self._patience = patience
        self._outages: list[dict[str, Any]] = []
        self._clock = self._new_clock()
        self._base = self._next = 0  # what is added to the device's numbers; the number that it gives next

    def run(self, ending: threading.Event, paused: threading.Event, report: Report) -> None:
        """Read the device until `ending`; while `paused` what it gives is left out, by name.

        Raises
        ------
        DeviceFailed
            Whatever went wrong, with the reason as its cause, once it was tried often enough.
        """
        try:
            self._run(ending, paused, report)
        except DeviceFailed as failure:
            self.failure = failure
            raise
        finally:
            self.ring.stop_meter()
            self.ended.set()

    def _run(self, ending: threading.Event, paused: threading.Event, report: Report) -> None:
        tried = 0
        while True:
            began = time.monotonic()
            try:
                return self._once(ending, paused, report)
            except DeviceFailed as failure:
                tried = 0 if time.monotonic() - began > _HEALTHY else tried
                if ending.is_set() or tried >= self._patience.retries:
                    raise
                tried += 1
                self._note_outage(failure)
                report("failure", f"{failure}; it is started again ({tried} of {self._patience.retries})")
                if ending.wait(self._patience.delay):
                    return None

    def _once(self, ending: threading.Event, paused: threading.Event, report: Report) -> None:
        try:
            self.device.start()
            try:
                self._loop(ending, paused, report)
            except BaseException as error:
                self._stop_after(error)
                raise
            self.device.stop()
        except DeviceFailed:
            raise
        except BaseException as error:
            raise DeviceFailed(f"the device {self.name!r} failed: {error!r}", key=self.name) from error

    def _stop_after(self, failure: BaseException) -> None:
        """Stop a device that failed; what fails now is noted beside the reason, and does not hide it."""
        try:
            self.device.stop()
        except Exception as error:
            failure.add_note(f"stopping the device {self.name!r} failed too: {error!r}")

    def _loop(self, ending: threading.Event, paused: threading.Event, report: Report) -> None:
        heard = time.monotonic()
        while not ending.is_set() and not self.complete and not getattr(self.device, "finished", False):
            block = self.device.read(0.1)
            arrived, now = time.time_ns(), time.monotonic()
            if block is not None and len(block.time):
                block = self._numbered(block, report)
            if block is not None:
                self._take(block, paused)
            if block is not None and len(block.time):
                self._time(block, arrived)
            if block is not None and len(block.time):
                heard = time.monotonic()  # not `now`: the time that a slow writer took is not the device's
            elif now - heard > self._silence():
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
                self.ring.push(self._cut(block))
        except StreamError as error:
            if self.ring.closed:
                raise
            raise DeviceFailed(f"the device {self.name!r} failed: {error}", key=self.name) from error

    # -- after a failure -------------------------------------------------------------------------------

    def _note_outage(self, failure: DeviceFailed) -> None:
        outage = {"after": self.produced, "time": time.time_ns(), "seconds": None, "reason": str(failure)}
        self._outages.append(outage)
        self._clock = self._new_clock()

    def _numbered(self, block: Block, report: Report) -> Block:
        """Let the numbers of a device that began again at 0 go on where they ended."""
        if not hasattr(block.first, "__index__"):
            return block  # the ring refuses it, by name
        first = operator.index(block.first)
        if self._outages and self._outages[-1]["seconds"] is None:
            outage = self._outages[-1]
            outage["seconds"] = (time.time_ns() - outage["time"]) / 1e9
            if first < self._next:
                self._base = self.produced
            report("recovery", f"the device {self.name!r} is back after {outage['seconds']:.1f} s")
        self._next = first + len(block.time)
        return block._replace(first=first + self._base)

    # -- how much, and when ----------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether it has as many samples as were asked for."""
        return self.most is not None and self.ring.pushed >= self.most

    def _cut(self, block: Block) -> Block:
        """Leave out what is more than was asked for."""
        if self.most is None or self.ring.pushed + len(block.time) <= self.most:
            return block
        stop = self.most - self.ring.pushed
        data = {name: rows[:stop] for name, rows in block.data.items()}
        clock = None if block.device_time is None else block.device_time[:stop]
        return Block(block.first, block.time[:stop], data, clock)

    def _silence(self) -> float:
        rate = self.spec.meta.get("rate")
        return self._patience.silence + 10 / rate if rate else float("inf")

    def _new_clock(self) -> ClockFit:
        return ClockFit("device_time" if self.spec.meta.get("device_time") else "sequence")

    def _time(self, block: Block, arrived: int) -> None:
        rate = self.spec.meta.get("rate")
        if block.device_time is not None:
            self._clock.add(int(block.device_time[-1]), arrived)
        elif rate:
            self._clock.add(round((int(block.first) + len(block.time)) * 1e9 / rate), arrived)

    @property
    def produced(self) -> int:
        """Samples that the device produced so far, those included that it lost or that were left out."""
        return self.ring.produced

    def rate(self) -> float:
        """Measure the samples per second, over the last three seconds or so."""
        return self.ring.measured_rate()

    def ledger(self) -> dict[str, Any]:
        """Say which samples no consumer can have, and how its clock ran."""
        gaps = self.ring.device_gaps
        return {
            "produced": self.produced,
            "device_lost": ranges.total(gaps),
            "device_gaps": gaps,
            "skipped": self.ring.skipped,
            "outages": [dict(outage) for outage in self._outages],
            "clock": self._clock.result(),
            **({} if self.failure is None else {"failure": str(self.failure)}),
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
