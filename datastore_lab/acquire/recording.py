"""`acquire`: what users call to make a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire import documents
from datastore_lab.acquire.policies import check_policy
from datastore_lab.acquire.run import PATIENCE, Run
from datastore_lab.acquire.stream import Stream
from datastore_lab.acquire.target import Target

if TYPE_CHECKING:
    from datastore_lab.records import Device

_OVERFLOWS: Mapping[str, Mapping[str, Any]] = {
    "block": {"policy": "block", "timeout": PATIENCE},
    "grow": {"policy": "grow"},
    "drop_oldest": {"policy": "drop_oldest"},
}


def acquire(
    *devices: Device,
    to: Any = None,
    ring: float | str | Mapping[str, Any] = 10.0,
    overflow: str = "block",
    metadata: Mapping[str, Any] | None = None,
    duration: float | str | None = None,
    flush_interval: float | str = 1.0,
    silence: float | str = 5.0,
    start: bool = True,
) -> Run:
    """Record devices, each at its own rate, into any number of files at once; returns immediately.

    Parameters
    ----------
    *devices : Device
        Each gives one stream, under its name.
    to : path, Store, Writer, or list of them, optional
        ``"data/run.h5"``, ``"data/run.zarr"``, ``"data/run.arrow"``, or a group of an open store. Without
        any the run can only be looked at.
    ring : float, str or mapping, default 10
        What is kept in memory of each stream: seconds, or one size as `RingBuffer` takes it, such as
        ``{"nbytes": "500 MB"}``.
    overflow : {"block", "grow", "drop_oldest"}
        What happens when a writer is a whole ring behind: its device waits (up to 10 s, then the writer
        loses samples), the writer's backlog grows in memory up to 1 GB, or it loses the oldest samples.
        Each lost range is recorded.
    metadata : mapping of str to JSON value, optional
        Written into every file.
    duration : float or str, optional
        Seconds of recording, pauses not counted, after which the run stops by itself.
    flush_interval : float or str, default 1
        Seconds between two moments at which everything is made durable.
    silence : float or str, default 5
        Seconds without data after which a device with a rate counts as failed.
    start : bool, default True
        False gives a run that waits for `Run.start`.

    Returns
    -------
    Run

    Raises
    ------
    AlreadyExists
        If a file has a stream of that name already: runs never overwrite.
    ValueError
        For two devices of one name, an unknown policy or a ring that does not fit into memory.

    Examples
    --------
    >>> from datastore_lab import SimulatedDAQ, open_store
    >>> store = open_store("memory://")
    >>> with acquire(SimulatedDAQ(rate=1000), to=store, duration=0.2) as run:
    ...     run.wait()
    True
    >>> list(store), store.stat("daq").meta["exit_status"]
    (['daq', 'marks'], 'success')
    """
    places = [] if to is None else list(to) if isinstance(to, (list, tuple)) else [to]
    size = ring if isinstance(ring, Mapping) else {"seconds": ring}
    streams = [Stream(device, size, units.parse_duration(silence)) for device in devices]
    _check_names([stream.name for stream in streams])
    if overflow not in _OVERFLOWS:
        check_policy(overflow)
    targets = [Target(place, units.parse_duration(flush_interval)) for place in places]
    run = Run(
        streams,
        targets,
        _OVERFLOWS[overflow],
        documents.plain(metadata or {}, "metadata"),
        None if duration is None else units.parse_duration(duration),
    )
    if start:
        run.start()
    return run


def _check_names(names: list[str]) -> None:
    if not names:
        raise ValueError("a run needs at least one device")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two devices are named {name!r}; give one of them another name")
    if documents.MARKS in names:
        raise ValueError(
            f"{documents.MARKS!r} is the name of the stream of marks; give the device another name"
        )
