"""From devices into files: ring, devices, runs and writers."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_DEVICES = (
    "BaslerCamera",
    "FileReplay",
    "HostMonitor",
    "SimulatedCamera",
    "SimulatedDAQ",
    "SimulatedLaser",
    "SimulatedPowerMeter",
    "Faults",
    "as_device",
    "describe_stream",
    "from_bluesky",
    "from_epics",
    "from_function",
    "from_lsl",
    "from_mqtt",
    "from_serial",
    "from_visa",
)

_HOMES = {
    "RingBuffer": "datastore_lab.acquire.ring",
    "RingReader": "datastore_lab.acquire.reader",
    "Spilled": "datastore_lab.acquire.spill",
    "Alarm": "datastore_lab.acquire.alarms",
    "DocumentSink": "datastore_lab.acquire.events",
    "read_config": "datastore_lab.acquire.config",
    "write_config": "datastore_lab.acquire.saying",
    "Cursor": "datastore_lab.acquire.cursor",
    "View": "datastore_lab.acquire.view",
    **dict.fromkeys(_DEVICES, "datastore_lab.acquire.devices"),
    "acquire": "datastore_lab.acquire.recording",
    "grid": "datastore_lab.acquire.scans",
    "Run": "datastore_lab.acquire.run",
    "HDF5Writer": "datastore_lab.acquire.writers",
    "ZarrWriter": "datastore_lab.acquire.writers",
    "ArrowDocumentWriter": "datastore_lab.acquire.writers",
    "ParquetDocumentWriter": "datastore_lab.acquire.writers",
    "CSVWriter": "datastore_lab.acquire.writers",
    "StoreWriter": "datastore_lab.acquire.writers",
    "StreamWriter": "datastore_lab.acquire.streaming",
    "ChannelConfig": "datastore_lab.acquire.channels",
    "StorageFormat": "datastore_lab.acquire.channels",
    "CompressionType": "datastore_lab.acquire.channels",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (the names of the table)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


class _Room(types.ModuleType):
    """Lets ``datastore_lab.acquire(...)`` record also where the name stands for this package.

    Importing a package binds it in its parent, so ``from datastore_lab import HostMonitor, acquire`` would
    give something that can't be called.
    """

    @property
    def __call__(self) -> Any:
        return self.__getattr__("acquire")


sys.modules[__name__].__class__ = _Room
