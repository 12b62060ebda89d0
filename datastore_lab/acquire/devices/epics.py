"""Process variables of EPICS over Channel Access, through caproto."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire.devices.extras import need
from datastore_lab.acquire.devices.layout import VALUE, check_rate, describe_stream
from datastore_lab.acquire.devices.source import SourceDevice, poll
from datastore_lab.acquire.documents import nanoseconds

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Stat

_TYPES = {0: str, 1: "int16", 2: "float32", 3: "uint16", 4: "uint8", 5: "int32", 6: "float64"}
"""Type by Channel Access's number: string, int, float, enum, char, long, double."""

_MOST_BYTES = 64_000_000


def from_epics(
    variables: str | Mapping[str, str],
    rate: float | str | None = None,
    *,
    name: str = "epics",
    timeout: float | str = 5.0,
) -> SourceDevice:
    """Make a device of process variables.

    Types, lengths and units are those of the variables; an enumeration gives its numbers, and its words are
    in the attributes. The device time is the time stamp of the record that changed last.

    Parameters
    ----------
    variables : str or mapping of str to str
        One process variable, or several by the names of their arrays.
    rate : float or str, optional
        Samples per second of the newest values. By default each change of one of them is a sample.
    name : str, default "epics"
        Name of the stream.
    timeout : float or str, default 5
        Seconds to look for the variables.

    Returns
    -------
    SourceDevice

    Raises
    ------
    MissingExtra
        If caproto is not installed.

    Examples
    --------
    >>> from_epics({"temperature": "LAB:TEMP", "pressure": "LAB:PRES"}, rate=10, name="vessel")
    <device 'vessel', stopped>
    """
    client = need("caproto.threading.client", "epics")
    named = {VALUE: variables} if isinstance(variables, str) else dict(variables)
    pace = check_rate(rate)
    access = _Access(client, named, units.parse_duration(timeout))

    @contextmanager
    def connect(feed: Feed) -> Iterator[None]:
        newest = _Newest(feed, named, each=pace is None)
        with access.connected(newest.changed_state) as pvs:
            kept = [newest.follow(array, pv) for array, pv in pvs.items()]  # caproto holds callbacks weakly
            if pace is not None:
                newest.wait(access.timeout)
                feed.run(lambda feed: poll(feed, newest.take, pace))
            yield
            feed.closed.set()
            kept.clear()

    advice = "check that the IOC runs and that EPICS_CA_ADDR_LIST leads to it"
    return SourceDevice(name, lambda: access.describe(pace), connect, advice=advice)


class _Access:
    """Connections to the variables."""

    def __init__(self, client: Any, names: Mapping[str, str], timeout: float) -> None:
        self._client, self._names, self.timeout = client, names, timeout

    @contextmanager
    def connected(self, changed: Any = None) -> Iterator[dict[str, Any]]:
        """Connect; what caproto would leave to the collection of garbage is released at the end."""
        context = self._client.Context()
        executors: list[Any] = []
        try:
            found = context.get_pvs(
                *self._names.values(), timeout=self.timeout, connection_state_callback=changed
            )
            pvs = dict(zip(self._names, found, strict=True))
            for pv in found:
                pv.wait_for_connection(timeout=self.timeout)
                executors.append(pv.circuit_manager.user_callback_executor)
            yield pvs
        finally:
            context.disconnect()
            for executor in executors:
                executor.shutdown(wait=False)
            for part in (context, context.broadcaster):
                part.selector.thread.join(1.0)
                part.selector.selector.close()

    def describe(self, rate: float | None) -> Stat:
        with self.connected() as pvs:
            read = {name: pv.read(data_type="control", timeout=self.timeout) for name, pv in pvs.items()}
            kinds = {
                name: (int(pv.channel.native_data_type), int(pv.channel.native_data_count))
                for name, pv in pvs.items()
            }
        for name, (_, count) in kinds.items():
            if not 0 < count <= _MOST_BYTES // 8:
                raise ValueError(f"{self._names[name]} claims {count} values; at most 64 MB are accepted")
        measures = {name: _text(getattr(answer.metadata, "units", "")) for name, answer in read.items()}
        words = {name: getattr(answer.metadata, "enum_strings", ()) for name, answer in read.items()}
        return describe_stream(
            {name: (_TYPES[kind], () if count == 1 else (count,)) for name, (kind, count) in kinds.items()},
            rate=rate,
            units={name: unit for name, unit in measures.items() if unit},
            device="EPICS " + " ".join(self._names.values()),
            device_time=True,
            meta={
                "enumerations": {name: [_text(word) for word in each] for name, each in words.items() if each}
            },
        )


class _Newest:
    """The newest values, as the variables' monitors tell them, from caproto's threads."""

    def __init__(self, feed: Feed, names: Mapping[str, str], *, each: bool) -> None:
        self._feed, self._names, self._each = feed, names, each
        self._values: dict[str, Any] = {}
        self._stamp = 0
        self._lock = threading.Lock()
        self._complete = threading.Event()

    def follow(self, array: str, pv: Any) -> Any:
        """Subscribe; what is returned has to be kept."""

        def update(_subscription: Any, answer: Any) -> None:
            try:
                self._update(array, answer)
            except Exception as error:  # this is caproto's thread: the one who reads is told
                self._feed.fail(error)

        subscription = pv.subscribe(data_type="time")
        subscription.add_callback(update)
        return subscription, update

    def changed_state(self, pv: Any, state: str) -> None:
        """Fail when a variable is disconnected, though caproto would look for it again."""
        if state == "disconnected" and not self._feed.closed.is_set():
            self._feed.fail(ConnectionError(f"{pv.name} is disconnected"))

    def wait(self, timeout: float) -> None:
        if not self._complete.wait(timeout):
            missing = sorted(self._names[name] for name in self._names.keys() - self._values.keys())
            raise TimeoutError(f"no value of {', '.join(missing)} came within {timeout:g} s")

    def take(self, number: int) -> None:
        with self._lock:
            self._feed.put(dict(self._values), number=number, device_time=self._stamp)

    def _update(self, array: str, answer: Any) -> None:
        values = [_text(each) if isinstance(each, bytes) else each for each in answer.data]
        with self._lock:
            self._values[array] = values[0] if len(values) == 1 else answer.data
            self._stamp = nanoseconds(answer.metadata.timestamp)
            if len(self._values) == len(self._names):
                self._complete.set()
                if self._each and not self._feed.closed.is_set():
                    self._feed.put(dict(self._values), device_time=self._stamp)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
