"""The suites of devices, as classes to inherit from in a test module."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest

from datastore_lab.errors import DeviceFailed
from datastore_lab.store import open_store
from datastore_lab.testing.devices.checks import check_description, check_device

QUICK = 3.0
"""Seconds within which a device stops, whatever it does."""


class DeviceConformance:
    """What every device does.

    Attributes
    ----------
    seconds : float
        How long it is read.
    patience : float
        Seconds within which it must give its first block.
    """

    seconds: ClassVar[float] = 0.5
    patience: ClassVar[float] = 10.0

    @staticmethod
    def make() -> Any:
        """Make the device under test, not started."""
        raise TypeError("a suite needs a static method make() that gives a device")

    def provoke(self, device: Any) -> None:
        """Make a device without a rate of its own give something; called again and again."""

    def test_it_keeps_the_protocol(self) -> None:
        device = self.make()
        check_device(
            device, seconds=self.seconds, patience=self.patience, provoke=lambda: self.provoke(device)
        )

    def test_stopping_before_the_start_does_nothing(self) -> None:
        device = self.make()
        with quick(f"{device.name}: stop() before start()"):
            device.stop()
            device.stop()

    def test_reading_before_the_start_gives_nothing(self) -> None:
        device = self.make()
        with quick(f"{device.name}: read(0.05) before start()"):
            assert device.read(0.05) is None, f"{device.name} gives blocks before start()"

    def test_reading_takes_no_longer_than_it_may(self) -> None:
        device = self.make()
        device.start()
        try:
            for timeout in (0.0, 0.05, 0.3, 0.0):
                began = time.monotonic()
                device.read(timeout)
                taken = time.monotonic() - began
                assert taken < timeout + 1.5, f"{device.name}: read({timeout}) took {taken:.2f} s"
        finally:
            device.stop()

    def test_stopping_wakes_a_reader(self) -> None:
        device = self.make()
        device.start()
        failed: list[BaseException] = []
        over = threading.Event()

        def read() -> None:
            try:
                while not over.is_set():
                    device.read(30.0)
            except BaseException as error:
                failed.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.05)
        over.set()
        with quick(f"{device.name}: stop() while it is read"):
            device.stop()
        reader.join(5.0)
        assert not reader.is_alive(), f"{device.name}: stop() does not wake a reader"
        assert not failed, f"{device.name}: a reader that is woken by stop() gets {failed[0]!r}"

    def test_nothing_is_left_behind(self) -> None:
        device = self.make()
        self._cycle(device)  # what a library opens once for the whole process is open now
        before = held()
        for _ in range(3):
            self._cycle(device)
        for _ in range(40):
            left = {what: count - before[what] for what, count in held().items() if count > before[what]}
            if not left:
                return
            time.sleep(0.05)
        raise AssertionError(f"{device.name} leaves behind after three starts and stops: {left}")

    def test_it_can_be_recorded(self) -> None:
        from datastore_lab.acquire import acquire

        device = self.make()
        spec = check_description(device)
        store = open_store("memory://")
        run = acquire(device, to=store, duration=30.0, silence=self.patience)
        try:
            self._await(device, lambda: run.stats()[device.name]["produced"] > 2)
        finally:
            run.stop()
        stat = store.stat(device.name)
        assert stat.arrays["time"].shape[0] > 0, f"nothing of {device.name} was recorded"
        for name, info in spec.arrays.items():
            assert stat.arrays[name].dtype == info.dtype
            assert stat.arrays[name].shape[1:] == info.shape[1:]
        numbers = store.record(device.name).arrays["sequence"]
        assert (np.diff(numbers) > 0).all(), f"{device.name}: sequence numbers do not grow"

    def _cycle(self, device: Any) -> None:
        """Start a device, read its first block and stop it."""
        device.start()
        try:
            self._await(device, lambda: device.read(0.1) is not None)
        finally:
            device.stop()

    def _await(self, device: Any, condition: Callable[[], bool]) -> None:
        """Wait until a device has done something, and fail if it does not."""
        ends = time.monotonic() + self.patience
        while not condition():
            assert time.monotonic() < ends, f"{device.name} gave nothing within {self.patience} s"
            self.provoke(device)
            time.sleep(0.01)


class ConnectedDeviceConformance(DeviceConformance):
    """What a device does, too, that can be absent or unplugged."""

    @staticmethod
    def make_absent() -> Any:
        """Make a device that is not there."""
        raise TypeError("a suite needs a static method make_absent() that gives a device which is not there")

    def unplug(self, device: Any) -> None:
        """Break the connection of a device that runs."""
        raise TypeError(f"a suite needs a method unplug(device) that breaks the connection of {device!r}")

    def test_a_device_that_is_not_there_says_so(self) -> None:
        device = self.make_absent()
        began = time.monotonic()
        with pytest.raises(DeviceFailed) as caught:
            device.start()
        assert time.monotonic() - began < self.patience, f"{device.name} takes long to see that it is absent"
        check_failure(device, caught.value)
        with quick(f"{device.name}: stop() after a start that failed"):
            device.stop()

    def test_a_device_that_is_unplugged_says_so(self) -> None:
        device = self.make()
        device.start()
        try:
            self._await(device, lambda: device.read(0.1) is not None)
            self.unplug(device)
            with pytest.raises(DeviceFailed) as caught:
                read_for(device, self.patience)
            check_failure(device, caught.value)
        finally:
            with quick(f"{device.name}: stop() after it was unplugged"):
                device.stop()
        assert device.read(0.05) is None


def check_failure(device: Any, error: DeviceFailed) -> None:
    """Check that an error names the device, the cause and the way out."""
    assert error.key == device.name, f"the error does not name the device as its key: {error!r}"
    assert device.name in str(error), f"the error does not name the device: {error}"
    assert ";" in str(error), f"the error does not say what to do, after a semicolon: {error}"
    assert error.__cause__ is not None or ":" in str(error), f"the error does not say its cause: {error}"


def read_for(device: Any, seconds: float) -> None:
    """Read a device for some time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        device.read(0.1)


def held() -> dict[str, int]:
    """Count the threads, open files with sockets, and child processes of this process."""
    process = psutil.Process()
    return {
        "threads": threading.active_count(),
        "files and sockets": process.num_fds(),
        "processes": len(process.children()),
    }


@contextmanager
def quick(what: str) -> Iterator[None]:
    """Check that something does not take long."""
    began = time.monotonic()
    yield
    taken = time.monotonic() - began
    assert taken < QUICK, f"{what} took {taken:.1f} s"
