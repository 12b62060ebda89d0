"""Devices: what gives blocks, and what makes a device of other things; libraries load when they are used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "HostMonitor": "host",
    "SimulatedCamera": "camera",
    "SimulatedDAQ": "daq",
    "SimulatedLaser": "optics",
    "SimulatedPowerMeter": "optics",
    "Faults": "faults",
    "FileReplay": "replay",
    "BaslerCamera": "basler",
    "from_epics": "epics",
    "from_lsl": "lsl",
    "from_mqtt": "mqtt",
    "from_serial": "serial_port",
    "from_visa": "visa",
    "Status": "status",
    "Pace": "pace",
    "SourceDevice": "source",
    "Feed": "feed",
    "describe_stream": "layout",
    "from_function": "function",
    "as_device": "duck",
    "from_bluesky": "bluesky",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (the names of the table)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
