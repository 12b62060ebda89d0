"""Instruments on serial lines: lines of text that come by themselves, or answers to a question."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab import units as of
from datastore_lab.acquire.devices.extras import need
from datastore_lab.acquire.devices.layout import VALUE, Fields, check_rate, describe_stream
from datastore_lab.acquire.devices.source import SourceDevice, poll
from datastore_lab.acquire.devices.texts import parse_line
from datastore_lab.errors import DeviceFailed

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Stat

_LOOK = 0.1
"""Seconds between two looks whether the device was stopped, while nothing comes."""

_TOO_LONG = b"... (longer than a line may be)"
_GARBAGE = ("fail", "skip")


def from_serial(
    port: str,
    rate: float | str | None = None,
    *,
    query: str | None = None,
    baudrate: int = 9600,
    name: str = "serial",
    fields: Fields | None = None,
    units: Mapping[str, str] | str | None = None,
    separator: str = ",",
    termination: str = "\n",
    timeout: float | str = 1.0,
    garbage: str = "fail",
    most: int | str = 4096,
) -> SourceDevice:
    r"""Make a device of lines of text on a serial port.

    Each line is one sample: the values of its fields, one after the other. Of lines that come by themselves
    the first is left out, as it may have begun before the port was opened.

    Parameters
    ----------
    port : str
        ``"/dev/ttyUSB0"``, ``"COM3"`` or a URL of pySerial, such as ``"socket://192.168.0.7:4001"``.
    rate : float or str, optional
        Samples per second; needed with a query. Without one it is only stated.
    query : str, optional
        What is sent for each sample; by default the lines come by themselves.
    baudrate : int, default 9600
    name : str, default "serial"
        Name of the stream.
    fields : mapping of str to dtype or (dtype, shape), optional
        What a line holds, in order; one float64 by default.
    units : mapping of str to str, or str, optional
        Units by array, or one for all of them.
    separator : str, default ","
        Between values; a blank stands for any number of blanks and tabs.
    termination : str, default "\\n"
        End of a line, in both directions.
    timeout : float or str, default 1
        Seconds that an answer may take.
    garbage : {"fail", "skip"}
        What a line that can't be read does: it fails the device, or counts as a lost sample.
    most : int or str, default 4096
        Longest line in bytes; a longer one is garbage.

    Returns
    -------
    SourceDevice

    Raises
    ------
    MissingExtra
        If pySerial is not installed.

    Examples
    --------
    >>> probe = from_serial("/dev/ttyUSB0", fields={"temperature": "float64", "humidity": "float64"})
    >>> list(probe.describe().arrays)
    ['temperature', 'humidity']
    """
    serial = need("serial", "serial")
    pace = check_rate(rate)
    if query is not None and pace is None:
        raise ValueError("a query needs a rate, such as rate=10")
    if garbage not in _GARBAGE:
        raise ValueError(f"garbage is one of {', '.join(map(repr, _GARBAGE))}, not {garbage!r}")
    spec = describe_stream(
        fields or {VALUE: "float64"}, rate=pace, units=units, device=f"{port}, {baudrate} baud"
    )
    end = termination.encode()
    seconds = of.parse_duration(timeout)

    @contextmanager
    def connect(feed: Feed) -> Iterator[None]:
        link = serial.serial_for_url(port, baudrate=baudrate, timeout=_LOOK, write_timeout=seconds)
        try:
            lines = _Lines(link, end, of.parse_size(most))
            reader = _Reader(name, spec, separator, garbage)
            if query is None or pace is None:
                feed.run(lambda feed: _listen(feed, lines, reader))
            else:
                asked = _Asked(lines, reader, query.encode() + end, seconds)
                feed.run(lambda feed: poll(feed, lambda number: asked.take(feed, number), pace))
            yield
        finally:
            link.close()

    return SourceDevice(
        name, spec, connect, advice="check the port, its cable and that no other program uses it"
    )


def _listen(feed: Feed, lines: _Lines, reader: _Reader) -> None:
    lines.begin()
    while not feed.closed.is_set():
        line = lines.next(time.monotonic() + _LOOK)
        if line is not None:
            reader.put(feed, line, feed.next)


class _Asked:
    """Sends a question and waits for the line that answers it."""

    def __init__(self, lines: _Lines, reader: _Reader, question: bytes, timeout: float) -> None:
        self._lines, self._reader, self._question, self._timeout = lines, reader, question, timeout

    def take(self, feed: Feed, number: int) -> None:
        self._lines.drop()
        self._lines.link.write(self._question)
        ends = time.monotonic() + self._timeout
        while not feed.closed.is_set():
            line = self._lines.next(min(ends, time.monotonic() + _LOOK))
            if line is not None:
                self._reader.put(feed, line, number)
                return
            if time.monotonic() >= ends:
                raise TimeoutError(f"no answer to {self._question!r} within {self._timeout:g} s")


class _Lines:
    """Lines of bytes from a port, none longer than so many bytes."""

    def __init__(self, link: Any, end: bytes, most: int) -> None:
        self.link, self._end, self._most = link, end, most
        self._waiting = bytearray()
        self._overlong = self._torn = False
        self._found: list[bytes] = []

    def next(self, until: float) -> bytes | None:
        """Wait for the next line; empty lines are passed over, one that was too long is named instead."""
        while not self._found:
            if time.monotonic() >= until:
                return None
            self._split(self.link.read(max(1, min(self.link.in_waiting, 65_536))))
        return self._found.pop(0)

    def begin(self) -> None:
        """Leave out the rest of a line that had begun before the port was opened."""
        self._torn = True

    def drop(self) -> None:
        """Forget what came before a question."""
        self.link.reset_input_buffer()
        self._waiting.clear()
        self._found.clear()
        self._overlong = False

    def _split(self, received: bytes) -> None:
        self._waiting += received
        *lines, rest = self._waiting.split(self._end)
        if self._torn and lines:
            self._torn = self._overlong = False
            del lines[0]
        for line in lines:
            if self._overlong or len(line) > self._most:
                self._found.append(_TOO_LONG)
            elif line.strip():
                self._found.append(bytes(line))
            self._overlong = False
        self._waiting = rest
        if len(rest) > self._most:  # keep none of it: a line that never ends must not fill the memory
            self._overlong, self._waiting = True, bytearray()


class _Reader:
    """Turns lines into samples, and knows what to do with those that are none."""

    def __init__(self, name: str, spec: Stat, separator: str, garbage: str) -> None:
        self._name, self._spec, self._separator, self._skips = name, spec, separator, garbage == "skip"

    def put(self, feed: Feed, line: bytes, number: int) -> None:
        try:
            sample = parse_line(line.decode("ascii"), self._spec, self._separator)
        except ValueError as error:  # (UnicodeDecodeError is one)
            if self._skips:
                feed.lose()
                return
            raise DeviceFailed(
                f"the device {self._name!r} failed: it sent what was not expected: {error}; check "
                "baud rate, fields and separator, or give garbage='skip'",
                key=self._name,
            ) from error
        feed.put(sample, number=number)
