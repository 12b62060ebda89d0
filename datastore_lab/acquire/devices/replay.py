"""A recording as a device: what was recorded comes again, at its own rate or at another."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, keys
from datastore_lab.acquire.devices.feed import failure_of
from datastore_lab.acquire.devices.layout import check_rate
from datastore_lab.errors import DeviceFailed, LabError
from datastore_lab.records import Block, Stat
from datastore_lab.store import Store, open_store

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME, SEQUENCE, DEVICE_TIME = "time", "sequence", "device_time"
_OWN = (TIME, SEQUENCE, DEVICE_TIME)
_PIECE_ROWS = 65_536
_BLOCK_BYTES = 8_000_000


class FileReplay:
    """Plays a recorded stream back.

    The host's time is now, the device time is the one that was recorded: its own if it had one. Gaps of the
    recording come again as jumps of the sequence numbers. A record without times, such as an array that was
    stored by hand, can be played with a rate.

    Parameters
    ----------
    place : path or Store
        A path is opened for reading while the device runs.
    stream : str
        Key of the record.
    rate : float or str, optional
        Samples per second, evenly; by default the samples come as far apart as they were recorded.
    speed : float, default 1
        How much faster than recorded.
    name : str, optional
        Name of the stream; by default the last part of the key.

    Raises
    ------
    ValueError
        If the speed is not positive, or there are a rate and a speed.

    Examples
    --------
    >>> from datastore_lab import SimulatedDAQ, acquire, open_store
    >>> store = open_store("memory://")
    >>> acquire(SimulatedDAQ(rate=1000), to=store, duration=0.2).wait()
    True
    >>> replay = FileReplay(store, "daq", speed=10)
    >>> replay.start()
    >>> replay.read(timeout=1.0).data["adc"].shape[1]
    4
    >>> replay.stop()
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | Store,
        stream: str,
        *,
        rate: float | str | None = None,
        speed: float = 1.0,
        name: str | None = None,
    ) -> None:
        if not 0 < speed < math.inf or (rate is not None and speed != 1.0):
            raise ValueError(f"give a rate, or a positive speed: not rate={rate}, speed={speed}")
        self._place, self._stream = place, stream
        self._rate, self._speed = check_rate(rate), speed
        self.name = name or keys.parse(stream)[-1]
        self._spec: Stat | None = None
        self._played: _Recording | None = None
        self._next, self._began, self._utc = 0, 0.0, 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    @property
    def finished(self) -> bool:
        """Whether the last sample was played."""
        played = self._played
        return played is not None and self._next >= played.count

    def describe(self) -> Stat:
        """Say what was recorded."""
        if self._spec is None:
            with self._open() as recording:
                self._spec = self._describe(recording)
        return self._spec

    def start(self) -> None:
        """Begin with the first sample.

        Raises
        ------
        DeviceFailed
            If the recording is not there, is empty or has no times and no rate was given.
        """
        self.describe()
        with self._lock:
            if self._played is None:
                self._played = self._open()
            self._next, self._began, self._utc = 0, time.monotonic(), time.time_ns()
            self._stopped.clear()

    def read(self, timeout: float) -> Block | None:
        """Wait for the samples that are due; what nobody reads waits in the file, and nothing is lost."""
        with self._lock:
            played = self._played
            if played is None or self._next >= played.count:
                ahead = math.inf
            else:
                ahead = self._due(played, self._next) - (time.monotonic() - self._began)
        if ahead > 0 and (self._stopped.wait(min(ahead, timeout)) or ahead > timeout):
            return None
        with self._lock:
            return None if self._played is None else self._take(self._played)

    def stop(self) -> None:
        """Stop playing, and close the file."""
        self._stopped.set()
        with self._lock:
            played, self._played = self._played, None
            if played is not None:
                played.close()

    def _open(self) -> _Recording:
        try:
            return _Recording(self._place, self._stream, self.name)
        except (LabError, OSError) as error:
            advice = "give the path of a recording and the name of one of its streams"
            raise failure_of(self.name, error, advice, "can't be played") from error

    def _describe(self, recording: _Recording) -> Stat:
        if self._rate is None and TIME not in recording.stat.arrays:
            raise DeviceFailed(
                f"the device {self.name!r} can't play {self._stream!r}: it has no times; give a rate",
                key=self.name,
            )
        arrays = {}
        for name, info in recording.stat.arrays.items():
            if name not in _OWN:
                dims = (TIME, *info.dims[1:])
                arrays[name] = info._replace(shape=(0, *info.shape[1:]), dims=dims, nbytes=0, chunks=None)
        meta = recording.stat.meta
        recorded = meta.get("rate")
        rate = self._rate or (recorded * self._speed if recorded else None)
        units = {name: unit for name, unit in (meta.get("units") or {}).items() if name in arrays}
        own = {"rate": rate, "units": units, "device": f"replay of {self._stream!r} in {recording.url}"}
        return Stat("stream", arrays, {**own, "device_time": TIME in recording.stat.arrays})

    def _due(self, played: _Recording, row: int) -> float:
        """Say when a row is due, in seconds after the start."""
        if self._rate is not None:
            return row / self._rate
        return (played.column(TIME, row) - played.column(TIME, 0)) / 1e9 / self._speed

    def _take(self, played: _Recording) -> Block | None:
        first, passed = self._next, time.monotonic() - self._began
        limit = min(played.count, first + played.block_rows, played.piece_end(first))
        if self._rate is not None:
            last = min(limit, int(passed * self._rate) + 1)
            offsets = np.arange(first, last) / self._rate
        else:
            stamps = played.rows(TIME, first, limit)
            offsets = np.maximum.accumulate((stamps - played.column(TIME, 0)) / (1e9 * self._speed))
            offsets = offsets[: int(np.searchsorted(offsets, passed, side="right"))]
            last = first + len(offsets)
        if last <= first:
            return None
        numbers = played.numbers(first, last)
        jumps = np.flatnonzero(np.diff(numbers) != 1)
        if len(jumps):
            last = first + int(jumps[0]) + 1
        self._next = last
        data = {name: played.rows(name, first, last) for name in played.names}
        host = self._utc + (offsets[: last - first] * 1e9).astype(np.int64)
        return Block(int(numbers[0]), host, data, played.device_time(first, last))


class _Recording:
    """A record that is read row by row, its own columns a piece at a time."""

    def __init__(self, place: str | os.PathLike[str] | Store, stream: str, name: str) -> None:
        self._mine = not isinstance(place, Store)
        self._store = place if isinstance(place, Store) else open_store(place, "r")
        self._pieces: dict[str, tuple[int, NDArray[Any]]] = {}
        try:
            self._key = (*self._store.prefix, *keys.parse(stream))
            self.url = self._store.url
            self.stat = self._store.engine.stat(self._key)
            self.names = [array for array in self.stat.arrays if array not in _OWN]
            self.count = self._count(name, stream)
        except BaseException:
            self.close()
            raise
        sizes = [info.nbytes for info in self.stat.arrays.values()]
        self.block_rows = max(1, _BLOCK_BYTES * self.count // max(sum(sizes), 1))
        self._zero = {TIME: 0} if TIME not in self.stat.arrays else {TIME: int(self.rows(TIME, 0, 1)[0])}

    def __enter__(self) -> _Recording:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._mine:
            self._store.close()

    def _count(self, name: str, stream: str) -> int:
        lengths = {info.shape[:1] for info in self.stat.arrays.values()}
        times = self.stat.arrays.get(TIME)
        if times is not None and dtypes.parse(times.dtype).kind not in "Mi":
            raise DeviceFailed(
                f"the device {name!r} can't play {stream!r} in {self.url}: its times are {times.dtype}; "
                "times are datetime64 or int64 in ns",
                key=name,
            )
        if len(lengths) != 1 or not self.names or lengths <= {(), (0,)}:
            raise DeviceFailed(
                f"the device {name!r} can't play {stream!r} in {self.url}: its arrays have the lengths "
                f"{sorted(lengths)}; play a stream that holds samples",
                key=name,
            )
        return int(lengths.pop()[0])

    def rows(self, array: str, first: int, last: int) -> NDArray[Any]:
        """Read rows of an array; times as int64 ns."""
        if array in _OWN:
            start, piece = self._piece(array, first)
            return piece[first - start : last - start]
        return self._store.engine.read(self._key, array, (slice(first, last),))

    def column(self, array: str, row: int) -> int:
        """Read one row of a column of the stream's own."""
        return self._zero[array] if row == 0 else int(self.rows(array, row, row + 1)[0])

    def piece_end(self, row: int) -> int:
        """Say up to where the columns are read at once."""
        return (row // _PIECE_ROWS + 1) * _PIECE_ROWS

    def numbers(self, first: int, last: int) -> NDArray[Any]:
        """Give sequence numbers: those recorded, or the rows."""
        return self.rows(SEQUENCE, first, last) if SEQUENCE in self.stat.arrays else np.arange(first, last)

    def device_time(self, first: int, last: int) -> NDArray[Any] | None:
        """Give the device's own clock, or the time at which it was recorded."""
        for name in (DEVICE_TIME, TIME):
            if name in self.stat.arrays:
                return self.rows(name, first, last)
        return None

    def _piece(self, array: str, row: int) -> tuple[int, NDArray[Any]]:
        start = row // _PIECE_ROWS * _PIECE_ROWS
        if self._pieces.get(array, (-1,))[0] != start:
            stop = min(start + _PIECE_ROWS, self.count)
            rows = self._store.engine.read(self._key, array, (slice(start, stop),))
            self._pieces[array] = start, rows.astype(_NS).view(np.int64) if rows.dtype.kind == "M" else rows
        return self._pieces[array]


_NS = np.dtype("M8[ns]")
