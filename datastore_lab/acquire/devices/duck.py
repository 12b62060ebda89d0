"""Finding out what somebody calls a device."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire.devices.bluesky import from_bluesky, is_flyable, is_readable
from datastore_lab.acquire.devices.function import from_function
from datastore_lab.registry import DEVICES

if TYPE_CHECKING:
    from datastore_lab.records import Device


def as_device(obj: Any, rate: float | str | None = None, *, name: str | None = None) -> Device:
    """Make a device of whatever was given, by what it can do.

    Parameters
    ----------
    obj : object
        A device is given back as it is. What has the methods of bluesky's ``Readable`` or ``Flyable`` (each
        device of ophyd and ophyd-async has) goes to `from_bluesky`, a function, generator function or
        iterator to `from_function`. Text is the name of a registered device, which is made without
        arguments.
    rate : float or str, optional
        Samples per second; functions and readable things need one.
    name : str, optional
        Name of the stream, in place of its own.

    Returns
    -------
    Device

    Raises
    ------
    TypeError
        If it is nothing of these.
    ValueError
        If it needs a rate; or if it is a device already, whose rate and name are its own.
    NotFound
        For text that names no device.

    Examples
    --------
    >>> as_device(lambda: 1.0, rate=10, name="one").name
    'one'
    >>> as_device("simulated-daq").name
    'daq'
    """
    if isinstance(obj, str):
        obj = DEVICES.load(obj)()
    if inspect.isclass(obj):
        raise TypeError(f"{obj.__name__} is a class; make a device of it: {obj.__name__}(...)")
    if is_device(obj):
        if rate is not None or (name is not None and name != obj.name):
            raise ValueError(f"{obj.name!r} is a device already; give it its rate and name when it is made")
        found: Device = obj
        return found
    if is_readable(obj) or is_flyable(obj):
        return from_bluesky(obj, rate, name=name)
    if callable(obj) or isinstance(obj, Iterator):
        return from_function(obj, rate, name=name)
    raise TypeError(
        f"{type(obj).__name__} is no device: that is a name with describe, start, read and stop, something "
        "Readable or Flyable of bluesky, a function or an iterator"
    )


def is_device(obj: Any) -> bool:
    """Say whether something has what `Device` has: a name, describe, start, read and stop.

    Examples
    --------
    >>> is_device(object())
    False
    """
    methods = (getattr(obj, method, None) for method in ("describe", "start", "read", "stop"))
    return hasattr(obj, "name") and all(map(callable, methods))
