"""The computer itself as an instrument: processor, memory, disk and network, through psutil."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from datastore_lab.acquire.devices.pace import Pace
from datastore_lab.records import ArrayInfo, Block, Stat

_UNITS = {
    "cpu": "%",
    "memory": "B",
    "disk_read": "B/s",
    "disk_write": "B/s",
    "network_received": "B/s",
    "network_sent": "B/s",
}


class _Reading(NamedTuple):
    """Counters of the operating system at one moment; only their differences mean anything."""

    at: float
    busy: Sequence[float]
    total: Sequence[float]
    flows: Sequence[float]


class HostMonitor:
    """What this computer does, sampled at a constant rate.

    The arrays, all float64: ``cpu`` (n, cores) in percent of each core, ``memory`` (n,) in bytes used,
    ``disk_read``, ``disk_write``, ``network_received`` and ``network_sent`` (n,) in bytes per second since
    the sample before. What the operating system does not tell is NaN.

    Parameters
    ----------
    rate : float, default 10
        Samples per second. The processor's counters advance in steps of about 10 ms, so ``cpu`` is coarse
        beyond some 20 samples per second.
    name : str, default "host"
        Name of the stream.

    Examples
    --------
    >>> monitor = HostMonitor(rate=50)
    >>> monitor.start()
    >>> block = monitor.read(timeout=1.0)
    >>> monitor.stop()
    >>> bool(block.data["memory"][0] > 1_000_000)
    True
    """

    def __init__(self, rate: float = 10.0, *, name: str = "host") -> None:
        self.name = name
        self._pace = Pace(rate)
        self._next = self._tick = 0  # samples taken; periods of the rate gone by
        self._before = _take()
        self._cores = len(self._before.total)

    def describe(self) -> Stat:
        """Say what the blocks will hold."""
        arrays = {name: ArrayInfo("<f8", (0,), ("time",), 0, None) for name in _UNITS}
        arrays["cpu"] = ArrayInfo("<f8", (0, self._cores), ("time", "core"), 0, None)
        meta = {"rate": self._pace.rate, "units": _UNITS, "device": f"host {platform.node()}"}
        return Stat("stream", arrays, meta)

    def start(self) -> None:
        """Begin to sample: the first sample is due one period from now."""
        self._before, self._next, self._tick = _take(), 0, 0
        self._pace.start()

    def read(self, timeout: float) -> Block | None:
        """Wait for the next sample.

        One that is asked for too late covers a longer time, and its time stamp says so; nothing is lost by
        that, since the counters go on.
        """
        if not self._pace.wait(self._tick + 1, timeout):
            return None
        before, self._before, number = self._before, _take(), self._next
        self._next, self._tick = number + 1, max(self._tick + 1, self._pace.due() - 1)
        stamp = np.array([time.time_ns()], dtype=np.int64)
        return Block(number, stamp, self._compare(before, self._before))

    def stop(self) -> None:
        """End sampling."""
        self._pace.stop()

    def _compare(self, before: _Reading, now: _Reading) -> dict[str, Any]:
        import psutil

        elapsed = max(now.at - before.at, 1e-9)
        names = ("disk_read", "disk_write", "network_received", "network_sent")
        flows = [(b - a) / elapsed for a, b in zip(before.flows, now.flows, strict=True)]
        data = {name: np.array([flow]) for name, flow in zip(names, flows, strict=True)}
        data["memory"] = np.array([float(psutil.virtual_memory().used)])
        data["cpu"] = self._load(before, now)[None]
        return data

    def _load(self, before: _Reading, now: _Reading) -> Any:
        """Percent of each core; NaN for cores that were switched off or on meanwhile."""
        load = np.full(self._cores, math.nan)
        pairs = zip(before.busy, now.busy, before.total, now.total, strict=False)
        for core, (busy_before, busy, total_before, total) in enumerate(pairs):
            if core < self._cores:
                passed = total - total_before
                load[core] = min(100.0, max(0.0, 100 * (busy - busy_before) / passed)) if passed > 0 else 0.0
        return load


def _take() -> _Reading:
    import psutil

    busy, total = [], []
    for times in psutil.cpu_times(percpu=True):
        # guest time is contained in user time already (proc_stat(5))
        whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        total.append(whole)
        busy.append(whole - times.idle - getattr(times, "iowait", 0.0))
    disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
    flows = (
        disk.read_bytes if disk else math.nan,
        disk.write_bytes if disk else math.nan,
        net.bytes_recv if net else math.nan,
        net.bytes_sent if net else math.nan,
    )
    return _Reading(time.monotonic(), busy, total, flows)
