"""`acquire`: what users call to make a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire import documents
from datastore_lab.acquire.alarms import check_alarms
from datastore_lab.acquire.config import RunConfig, read_config
from datastore_lab.acquire.devices.duck import as_device
from datastore_lab.acquire.options import share_out
from datastore_lab.acquire.plan import Plan
from datastore_lab.acquire.policies import check_policy
from datastore_lab.acquire.run import PATIENCE, Run
from datastore_lab.acquire.stream import Patience, Stream
from datastore_lab.acquire.target import Target

if TYPE_CHECKING:
    from datastore_lab.acquire.alarms import Alarm
    from datastore_lab.acquire.plan import Until

_NOTHING = RunConfig([], None, None, None, {})
_RING = 10.0
_FLUSH = 1.0


def acquire(
    *devices: Any,
    to: Any = None,
    ring: float | str | Mapping[str, Any] | None = None,
    overflow: str | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    duration: float | str | None = None,
    until: Until | None = None,
    alarms: Sequence[Alarm] = (),
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    flush_interval: float | str | None = None,
    silence: float | str = 5.0,
    retries: int = 3,
    retry_delay: float | str = 0.5,
    stop_on_failure: bool = False,
    start: bool = True,
) -> Run:
    """Record devices, each at its own rate, into any number of files at once; returns immediately.

    Parameters
    ----------
    *devices : Device, or what `as_device` makes one of
        Each gives one stream, under its name.
    to : path, Store, Writer, callable, or list of them, optional
        ``"data/run.h5"``, ``"data/run.zarr"``, ``"data/run.arrow"``, or a group of an open store. What can be
        called gets the documents of bluesky's event model, as the callbacks of a RunEngine do. Without any
        the run can only be looked at.
    ring : float, str or mapping, default 10
        What is kept in memory of each stream: seconds, or one size as `RingBuffer` takes it, such as
        ``{"nbytes": "500 MB"}``. A ``path`` beside it puts the rings into files that other processes follow
        with `RingReader`: with several devices each at the path, a dot and its name.
    overflow : {"block", "grow", "spill", "drop_oldest"} or mapping, default "block"
        What happens when a writer is a whole ring behind: its device waits (up to 10 s, then the writer
        loses samples), the writer's backlog grows in memory up to 1 GB, or in a file up to 10 GB, or it loses
        the oldest samples. Each lost range is recorded. A mapping gives a ``policy`` and what
        `RingBuffer.cursor` takes with it: ``timeout``, ``limit``, ``folder``.
    metadata : mapping of str to JSON value, optional
        Written into every file.
    duration : float or str, optional
        Seconds of recording, pauses not counted, after which the run stops by itself.
    until : mapping of str to int, or callable, optional
        The samples that streams are to have, by their names: each device ends with exactly so many, and the
        run ends with the last of them. Or a function that is given the run, about 20 times a second, and says
        whether it is to end.
    alarms : sequence of Alarm, optional
        Thresholds at which the run is marked, paused or stopped.
    config : path or mapping, optional
        A TOML file with the tables ``[storage]`` and ``[ring_buffer]``, see `read_config`; what is given
        here besides takes precedence.
    flush_interval : float or str, default 1
        Seconds between two moments at which everything is made durable.
    silence : float or str, default 5
        Seconds without data after which a device with a rate counts as failed.
    retries : int, default 3
        How often a device that failed is started again before it is given up. Each failure is in the stream
        of marks and, with its reason and duration, in the attributes of the device's stream (``outages``).
    retry_delay : float or str, default 0.5
        Seconds between a failure and the next start.
    stop_on_failure : bool, default False
        End the run when a device is given up. Otherwise the others go on, and the failure is raised at the
        end; it ends at once if there are no others.
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
        For two devices of one name, an unknown policy, a ring that does not fit into memory, or an alarm or
        number of samples of something that is not recorded.

    Examples
    --------
    >>> from datastore_lab import SimulatedDAQ, open_store
    >>> store = open_store("memory://")
    >>> with acquire(SimulatedDAQ(rate=1000), to=store, until={"daq": 200}) as run:
    ...     run.wait()
    True
    >>> list(store), store.stat("daq").meta["exit_status"], store.stat("daq").arrays["adc"].shape
    (['daq', 'marks'], 'success', (200, 4))
    """
    said = _NOTHING if config is None else read_config(config)
    places = said.to if to is None else list(to) if isinstance(to, (list, tuple)) else [to]
    size = _first(ring, said.ring, _RING)
    interval = units.parse_duration(_first(flush_interval, said.flush_interval, _FLUSH))
    policy = _overflow(_first(overflow, said.overflow, "block"))
    patience = Patience(units.parse_duration(silence), retries, units.parse_duration(retry_delay))
    made = [as_device(device) for device in devices]
    _check_names([device.name for device in made])
    streams = [Stream(device, _size(size, device.name, len(made)), patience) for device in made]
    check_alarms(alarms, streams)
    _limit(streams, until)
    targets = [Target(place, interval) for place in places]
    _tell(said.options, [target for target in targets if target.is_path])
    seconds = None if duration is None else units.parse_duration(duration)
    parameters = {
        "ring": dict(size) if isinstance(size, Mapping) else size,
        "overflow": {key: str(value) if key == "folder" else value for key, value in policy.items()},
        "duration": seconds,
        "until": dict(until) if isinstance(until, Mapping) else until and repr(until),
        "alarms": [dataclasses.asdict(alarm) for alarm in alarms],
        "flush_interval": interval,
        "stop_on_failure": stop_on_failure,
        **patience._asdict(),
        **said.options,
    }
    described = documents.plain(metadata or {}, "metadata")
    run = Run(streams, targets, Plan(policy, described, seconds, until, alarms, stop_on_failure, parameters))
    if start:
        run.start()
    return run


def _first(*values: Any) -> Any:
    """Give the first that is said."""
    return next(value for value in values if value is not None)


def _overflow(asked: str | Mapping[str, Any]) -> dict[str, Any]:
    """Give what `RingBuffer.cursor` is to be told."""
    given: dict[str, Any] = {"policy": asked} if isinstance(asked, str) else dict(asked)
    check_policy(given.get("policy"))
    if unknown := given.keys() - {"policy", "timeout", "limit", "folder"}:
        raise ValueError(f"overflow has no {sorted(unknown)[0]!r}; there are policy, timeout, limit, folder")
    return {"timeout": PATIENCE, **given} if given["policy"] == "block" else given


def _tell(options: Mapping[str, Any], targets: Sequence[Target]) -> None:
    """Tell the writers of paths what the configuration says of them."""
    if options:
        writers = [(target.label, target.factory()) for target in targets]
        for target, share in zip(targets, share_out(options, writers), strict=True):
            target.options = share


def _size(ring: float | str | Mapping[str, Any], name: str, devices: int) -> dict[str, Any]:
    size: dict[str, Any] = dict(ring) if isinstance(ring, Mapping) else {"seconds": ring}
    if "path" in size and devices > 1:
        size["path"] = f"{os.fspath(size['path'])}.{name}"
    return size


def _limit(streams: Sequence[Stream], until: Until | None) -> None:
    """Tell streams how many samples they are to have."""
    if until is None or callable(until):
        return
    named = {stream.name: stream for stream in streams}
    for name, count in until.items():
        if name not in named:
            raise ValueError(f"until names {name!r}, and there are {', '.join(map(repr, named))}")
        if count < 1:
            raise ValueError(f"until asks for {count} samples of {name!r}; that must be at least 1")
        named[name].most = count


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
