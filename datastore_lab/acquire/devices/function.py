"""Functions and generators as devices."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire.devices.layout import Fields, check_rate, describe_stream, fields_of
from datastore_lab.acquire.devices.source import SourceDevice, poll

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Stat


def from_function(
    read: Callable[[], Any] | Iterator[Any],
    rate: float | str | None = None,
    *,
    name: str | None = None,
    units: Mapping[str, str] | str | None = None,
    fields: Fields | None = None,
) -> SourceDevice:
    """Make a device of a function, a generator function or an iterator.

    Each call of the function, or each thing that the iterator yields, is one sample: a number, text or an
    array, or a mapping of names to those. It runs in a thread of its own, so that reading and stopping the
    device never wait for it.

    Parameters
    ----------
    read : callable or iterator
        A generator function is called anew at every start.
    rate : float or str, optional
        Samples per second. A function needs one; an iterator without one sets the pace itself. Samples for
        which the function was too slow are lost, and counted as lost.
    name : str, optional
        Name of the stream; by default that of the function.
    units : mapping of str to str, or str, optional
        Units by array, or one for all of them.
    fields : mapping of str to dtype or (dtype, shape), optional
        What one sample holds, see `describe_stream`. By default one sample is taken to find out when the
        device is first described.

    Returns
    -------
    SourceDevice

    Raises
    ------
    ValueError
        For a function without a rate, or a name or rate that can't be.
    TypeError
        For anything that is neither a function nor an iterator.

    Examples
    --------
    >>> thermometer = from_function(lambda: 21.5, rate=100, name="thermometer", units="°C")
    >>> thermometer.start()
    >>> thermometer.read(timeout=1.0).data["value"][0]
    np.float64(21.5)
    >>> thermometer.stop()

    >>> def ramp():
    ...     for step in range(3):
    ...         yield {"step": step, "volt": step / 10}
    >>> device = from_function(ramp, rate=1000)
    >>> device.name, sorted(device.describe().arrays)
    ('ramp', ['step', 'volt'])
    """
    if not callable(read) and not isinstance(read, Iterator):
        raise TypeError(f"a function or an iterator makes a device, not {type(read).__name__}")
    pace = check_rate(rate)
    source: _Called | _Yielded
    if isinstance(read, Iterator) or inspect.isgeneratorfunction(read):
        source = _Yielded(read, pace)
    elif pace is None:
        raise ValueError("a function needs a rate, such as from_function(read, rate=10): it does not set one")
    else:
        source = _Called(read, pace)
    own = name or str(getattr(read, "__name__", "")).strip("<>") or "function"

    def describe() -> Stat:
        found = fields if fields is not None else fields_of(source.first())
        return describe_stream(found, rate=pace, units=units, device=f"{source.kind} {own}")

    advice = f"the error comes from the {source.kind} {own!r}: mend it, or what it reads"
    return SourceDevice(own, describe() if fields is not None else describe, source.feeding, advice=advice)


class _Called:
    """A function: asked once per period."""

    kind = "function"

    def __init__(self, read: Callable[[], Any], rate: float) -> None:
        self._read, self._rate = read, rate

    def first(self) -> Any:
        return self._read()

    @contextmanager
    def feeding(self, feed: Feed) -> Iterator[None]:
        feed.run(lambda feed: poll(feed, lambda number: feed.put(self._read(), number=number), self._rate))
        yield


class _Yielded:
    """An iterator: goes on where it was; a generator function begins anew at each start."""

    kind = "generator"

    def __init__(self, source: Callable[[], Iterator[Any]] | Iterator[Any], rate: float | None) -> None:
        self._source, self._rate = source, rate
        self._kept: tuple[Any, Iterator[Any]] | None = None  # taken already, and not passed on yet

    def first(self) -> Any:
        values = self._values()
        try:
            self._kept = next(values), values
        except StopIteration:
            raise ValueError("it yields nothing; give its fields if that is right") from None
        return self._kept[0]

    @contextmanager
    def feeding(self, feed: Feed) -> Iterator[None]:
        feed.run(self._run)
        yield

    def _run(self, feed: Feed) -> None:
        kept, self._kept = self._kept, None
        values = kept[1] if kept else self._values()
        whole = itertools.chain([kept[0]], values) if kept else values
        try:
            self._pass_on(feed, whole, values)
        finally:
            if callable(self._source) and hasattr(values, "close"):
                values.close()  # in its own thread: what it holds open is released there

    def _pass_on(self, feed: Feed, whole: Iterator[Any], values: Iterator[Any]) -> None:
        try:
            if self._rate is not None:
                poll(feed, lambda number: feed.put(next(whole), number=number), self._rate)
                return
            for value in whole:
                if feed.closed.is_set():
                    if not callable(self._source):
                        self._kept = value, values
                    return
                feed.put(value)
        except StopIteration:  # of next(): a rate was asked for
            pass
        feed.end()

    def _values(self) -> Iterator[Any]:
        return iter(self._source() if callable(self._source) else self._source)
