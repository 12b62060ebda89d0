"""Cameras of Basler through pypylon; with ``PYLON_CAMEMU=2`` in the environment it emulates two."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire.devices.extras import need
from datastore_lab.acquire.devices.layout import check_rate, describe_stream
from datastore_lab.acquire.devices.source import SourceDevice
from datastore_lab.errors import DeviceFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Block, Stat

_ADVICE = "check its cable, power and serial number, and that no other program uses it"
_BUFFERS = 32
_LOOK = 0.002
"""Seconds between two looks. pylon's own waiting ends by the signal SIGALRM, which belongs to the program."""

_GRAB = 2.0
"""Seconds that a single frame may take beyond its exposure and period."""

_UNNUMBERED = 2**64 - 1
_MODES = ("free", "software")


class BaslerCamera:
    """A camera of Basler.

    The array is ``frame`` (n, y, x), or (n, y, x, channel) for colour, in the pixel format that is
    set. Frames that the camera or the transfer lost show as jumps of the sequence numbers.

    Parameters
    ----------
    serial : str, optional
        Serial number; by default the first camera that is found.
    rate : float or str, optional
        Frames per second in the trigger mode ``free``; by default what the camera is set to.
    shape : (int, int), optional
        Rows and columns; by default what the camera is set to.
    pixel_format : str, optional
        Such as ``"Mono8"`` or ``"Mono12"``.
    name : str, default "camera"
        Name of the stream.

    Raises
    ------
    MissingExtra
        If pypylon is not installed.

    Examples
    --------
    >>> import os
    >>> os.environ["PYLON_CAMEMU"] = "2"
    >>> camera = BaslerCamera(shape=(48, 64))
    >>> camera.grab_frame().shape
    (48, 64)
    >>> camera.stop()
    """

    def __init__(
        self,
        serial: str | None = None,
        *,
        rate: float | str | None = None,
        shape: tuple[int, int] | None = None,
        pixel_format: str | None = None,
        name: str = "camera",
    ) -> None:
        self.name = name
        self.trigger_mode = "free"
        self.exposure_ms: float | None = None
        self._pylon = need("pypylon.pylon", "basler")
        self._serial, self._shape, self._format = serial, shape, pixel_format
        self._rate = check_rate(rate)
        self._camera: Any = None
        self._lock = threading.Lock()
        self._source = self._make_source()

    def describe(self) -> Stat:
        """Say what the blocks will hold; opens the camera to ask it."""
        return self._source.describe()

    def set_exposure(self, ms: float) -> None:
        """Set the exposure time in milliseconds; also while the camera runs.

        Raises
        ------
        ValueError
            If it is not positive.
        DeviceFailed
            If the camera refuses it.
        """
        if not ms > 0:
            raise ValueError(f"an exposure is a positive number of milliseconds, not {ms}")
        self.exposure_ms = float(ms)
        with self._lock:
            if self._camera is not None:
                self._apply(self._camera, "ExposureTime", 1000 * self.exposure_ms)
            else:
                self._source = self._make_source()

    def set_trigger_mode(self, mode: str) -> None:
        """Choose ``"free"`` (frames come at the rate) or ``"software"`` (one per `trigger`)."""
        if mode not in _MODES:
            raise ValueError(f"the trigger modes are 'free' and 'software', not {mode!r}")
        with self._lock:
            if self._camera is not None:
                raise DeviceFailed(f"{self.name} is running; stop it before changing its trigger mode")
            self.trigger_mode = mode
            self._source = self._make_source()

    def trigger(self) -> None:
        """Ask for one frame, in the trigger mode ``software``."""
        if self.trigger_mode != "software":
            raise DeviceFailed(f"{self.name} runs freely; call set_trigger_mode('software') before trigger()")
        with self._lock:
            if self._camera is None:
                raise DeviceFailed(f"{self.name} does not run; start it before trigger()", key=self.name)
            self._await_ready(self._camera)
            self._camera.ExecuteSoftwareTrigger()

    def _await_ready(self, camera: Any) -> None:
        """Wait until a trigger would be heard: one that comes too early is lost without a word."""
        waited = _GRAB + (self.exposure_ms or 0.0) / 1000
        ends = time.monotonic() + waited
        while camera.CanWaitForFrameTriggerReady() and not camera.WaitForFrameTriggerReady(
            0, self._pylon.TimeoutHandling_Return
        ):
            if time.monotonic() > ends:
                raise DeviceFailed(
                    f"{self.name} was not ready for a trigger within {waited:.3g} s; trigger again",
                    key=self.name,
                )
            time.sleep(_LOOK)

    def grab_frame(self) -> NDArray[Any]:
        """Take one frame and return it; starts the camera if it does not run.

        Raises
        ------
        DeviceFailed
            If none comes in time.
        """
        self.start()
        if self.trigger_mode == "software":
            self.trigger()
        timeout = _GRAB + (self.exposure_ms or 0.0) / 1000 + 1 / (self._rate or 1.0)
        block = self._source.read(timeout, most=1)
        if block is None:
            raise DeviceFailed(f"{self.name} gave no frame within {timeout:.3g} s; grab again", key=self.name)
        frame: NDArray[Any] = block.data["frame"][0]
        return frame

    def start(self) -> None:
        """Open the camera and begin with frame number 0; nothing if it runs."""
        self._source.start()

    def read(self, timeout: float) -> Block | None:
        """Wait at most `timeout` seconds for the next frames."""
        return self._source.read(timeout)

    def stop(self) -> None:
        """Stop and close the camera."""
        self._source.stop()

    def _make_source(self) -> SourceDevice:
        return SourceDevice(self.name, self._describe, self._connect, advice=_ADVICE)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        found = self._pylon.DeviceInfo()
        if self._serial is not None:
            found.SetSerialNumber(self._serial)
        camera = self._pylon.InstantCamera(self._pylon.TlFactory.GetInstance().CreateFirstDevice(found))
        camera.Open()
        try:
            self._configure(camera)
            yield camera
        finally:
            camera.Close()

    def _configure(self, camera: Any) -> None:
        if self._format is not None:
            self._apply(camera, "PixelFormat", self._format)
        if self._shape is not None:
            self._apply(camera, "Height", self._shape[0])
            self._apply(camera, "Width", self._shape[1])
        if self.exposure_ms is not None:
            self._apply(camera, "ExposureTime", 1000 * self.exposure_ms)
        if self._rate is not None:
            self._apply(camera, "AcquisitionFrameRateEnable", True)
            self._apply(camera, "AcquisitionFrameRate", self._rate)
        software = self.trigger_mode == "software"
        self._apply(camera, "TriggerSelector", "FrameStart")
        self._apply(camera, "TriggerMode", "On" if software else "Off")
        if software:
            self._apply(camera, "TriggerSource", "Software")

    def _apply(self, camera: Any, feature: str, value: Any) -> None:
        """Set a feature; older cameras call some of them otherwise."""
        for name in (feature, f"{feature}Abs"):
            node = camera.GetNodeMap().GetNode(name)
            if node is None:
                continue
            try:
                getattr(camera, name).Value = value
            except self._pylon.GenericException as error:
                raise DeviceFailed(
                    f"the device {self.name!r} does not take {name} = {value}: {error}; choose another value",
                    key=self.name,
                ) from error
            return
        raise DeviceFailed(f"the device {self.name!r} has no {feature}; leave that out", key=self.name)

    def _describe(self) -> Stat:
        with self._opened() as camera:
            shape = (int(camera.Height.Value), int(camera.Width.Value))
            pixel, kind = camera.PixelFormat.IntValue, camera.PixelFormat.Value
            model = camera.GetDeviceInfo()
            rate = self._feature(camera, "ResultingFrameRate") if self.trigger_mode == "free" else None
            exposure = self._feature(camera, "ExposureTime") / 1000
        channels = self._pylon.SamplesPerPixel(pixel)
        whole = shape if channels == 1 else (*shape, channels)
        depth = "uint8" if self._pylon.BitDepth(pixel) <= 8 else "uint16"
        return describe_stream(
            {"frame": (depth, whole, ("y", "x", "channel")[: len(whole)])},
            rate=rate,
            units="counts",
            device=f"{model.GetModelName()} {model.GetSerialNumber()}",
            meta={"exposure_ms": exposure, "trigger_mode": self.trigger_mode, "pixel_format": kind},
        )

    def _feature(self, camera: Any, feature: str) -> float:
        """Read a feature; older cameras call some of them otherwise."""
        for name in (feature, f"{feature}Abs"):
            if camera.GetNodeMap().GetNode(name) is not None and getattr(camera, name).IsReadable():
                return float(getattr(camera, name).Value)
        raise DeviceFailed(f"the device {self.name!r} does not tell its {feature}; {_ADVICE}", key=self.name)

    @contextmanager
    def _connect(self, feed: Feed) -> Iterator[None]:
        with self._opened() as camera:
            camera.MaxNumBuffer.Value = _BUFFERS
            camera.StartGrabbing(self._pylon.GrabStrategy_OneByOne)
            self._camera = camera
            try:
                feed.run(lambda feed: self._grab(feed, camera))
                yield
            finally:
                with self._lock:
                    self._camera = None
                camera.StopGrabbing()

    def _grab(self, feed: Feed, camera: Any) -> None:
        numbers = _Numbers()
        while not feed.closed.is_set():
            if not camera.IsGrabbing():
                raise ConnectionError("the camera was closed, or is gone")
            result = camera.RetrieveResult(0, self._pylon.TimeoutHandling_Return)
            if not result or not result.IsValid():
                feed.closed.wait(_LOOK)
                continue
            try:
                number = numbers.of(result)
                if result.GrabSucceeded():
                    feed.put({"frame": result.Array}, number=number)
            finally:
                result.Release()


class _Numbers:
    """Numbers of frames from the camera's own, which may begin anywhere, wrap around or be missing."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._number = -1

    def of(self, result: Any) -> int:
        """Give the number of a frame; one that failed takes a number too, and leaves a gap."""
        own = int(result.BlockID)
        own = int(result.ImageNumber) if own == _UNNUMBERED else own
        ahead = 1 if self._last is None else own - self._last
        self._last = own
        self._number += max(1, ahead)
        return self._number
