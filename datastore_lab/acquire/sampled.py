"""Samples of several channels at one rate: what a stream of them is, and blocks that fit it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import StreamError
from datastore_lab.records import ArrayInfo, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.acquire.channels import ChannelConfig

_SECOND = 1_000_000_000


class Sampled:
    """Channels that are sampled together.

    Parameters
    ----------
    channels : sequence of ChannelConfig
    rate : float
        Samples per second.
    dtype : dtype
    name : str
        Of the stream, for messages.

    Attributes
    ----------
    spec : Stat
        Of the stream.
    limits : dict of str to int
        How many samples of each channel lay at the ends of its range or beyond.

    Raises
    ------
    ValueError
        For two channels of one name or number, or samples that are no numbers.
    """

    def __init__(
        self, channels: Sequence[ChannelConfig], rate: float, dtype: np.dtype[Any], name: str
    ) -> None:
        self._channels, self.rate, self._dtype, self._name = _checked(channels), rate, dtype, name
        self.spec = _spec(self._channels, rate, dtype, name)
        self.limits = {channel.name: 0 for channel in self._channels}
        self._zero = 0

    def columns(self, samples: Any) -> dict[str, NDArray[Any]]:
        """Give one array per channel, of one length."""
        names = [channel.name for channel in self._channels]
        if isinstance(samples, Mapping):
            if samples.keys() != set(names):
                raise StreamError(f"samples are of {sorted(samples)}, and the channels are {names}")
            columns = [np.asarray(samples[name]) for name in names]
        else:
            table = np.asarray(samples)
            table = table[:, np.newaxis] if table.ndim == 1 and len(names) == 1 else table
            if table.ndim != 2 or table.shape[1] != len(names):
                raise StreamError(f"samples have the shape {table.shape}, not (n, {len(names)})")
            columns = list(table.T)
        if any(column.ndim != 1 or len(column) != len(columns[0]) for column in columns):
            raise StreamError(f"the channels have samples of the shapes {[one.shape for one in columns]}")
        return {
            name: dtypes.fit(column, self._dtype, name) for name, column in zip(names, columns, strict=True)
        }

    def times(self, start: int, count: int, given: NDArray[Any] | int | None) -> NDArray[Any]:
        """Give the time of each sample, as it was given or counted by the rate."""
        if isinstance(given, np.ndarray):
            times = given.astype("M8[ns]").view(np.int64) if given.dtype.kind == "M" else given
            if times.shape != (count,) or times.dtype != np.int64:
                raise StreamError(
                    f"the times are {given.dtype} of the shape {given.shape}, for {count} samples"
                )
            return times
        numbers = np.arange(start, start + count)
        if given is not None:
            self._zero = int(given) - round(start * _SECOND / self.rate)
        elif not self._zero:
            self._zero = time.time_ns() - round((start + count) * _SECOND / self.rate)
        return self._zero + np.round(numbers * (_SECOND / self.rate)).astype(np.int64)

    def count_limits(self, data: Mapping[str, NDArray[Any]]) -> None:
        """Count samples at the ends of a channel's range or beyond: these may be cut off."""
        for channel in self._channels:
            values = data[channel.name]
            outside = (values <= channel.minimum) | (values >= channel.maximum)
            self.limits[channel.name] += int(np.count_nonzero(outside))


def _given_times(given: NDArray[Any], count: int) -> NDArray[Any]:
    times: NDArray[Any] = given.astype("M8[ns]").view(np.int64) if given.dtype.kind == "M" else given
    if times.shape != (count,) or times.dtype != np.int64:
        raise StreamError(f"the times are {given.dtype} of the shape {given.shape}, for {count} samples")
    return times


def _checked(channels: Sequence[ChannelConfig]) -> list[ChannelConfig]:
    found = list(channels)
    names, numbers = [one.name for one in found], [one.index for one in found]
    if not found or len(set(names)) < len(names) or len(set(numbers)) < len(numbers):
        raise ValueError(f"channels need names and numbers of their own; these are {names}, {numbers}")
    return found


def _spec(channels: Sequence[ChannelConfig], rate: float, dtype: np.dtype[Any], name: str) -> Stat:
    if dtype.kind not in "fiu" or rate <= 0:
        raise ValueError(f"samples are numbers at a rate above 0, not {dtype} at {rate} per second")
    info = ArrayInfo(dtypes.name(dtype), (0,), ("time",), 0, None)
    described = [
        {"index": one.index, "name": one.name, "range": [one.minimum, one.maximum], "units": one.units}
        for one in channels
    ]
    listed = {one.name: one.units for one in channels}
    meta = {"rate": rate, "units": listed, "channels": described, "device": name}
    return Stat("stream", {one.name: info for one in channels}, meta)
