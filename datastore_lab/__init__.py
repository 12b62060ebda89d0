"""One bench from device to figure.

Everything the lab keeps is named arrays plus JSON attributes at a hierarchical key. `open_store` opens
a place for them (an HDF5 file, a Zarr folder, an Arrow file, memory); `cached` and ``%%cache`` keep
expensive results there; `AnalysisWorkspace` orders an analysis; `acquire` streams devices into it; and
`browse` shows it.

Importing this package loads none of the heavy libraries: each public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "open_store": "datastore_lab.store",
    "Store": "datastore_lab.store",
    "copy_store": "datastore_lab.store.moving",
    "recover": "datastore_lab.store.recovering",
    "register_type": "datastore_lab.objects",
    "Record": "datastore_lab.records",
    "cached": "datastore_lab.cache",
    "interpolated": "datastore_lab.cache",
    "StorageMemory": "datastore_lab.cache",
    "StorageHDF5": "datastore_lab.cache",
    "AnalysisWorkspace": "datastore_lab.workspace",
    "LazyAnalysisWorkspace": "datastore_lab.workspace",
    "Design": "datastore_lab.experiment",
    "Storage": "datastore_lab.experiment",
    "StorageWriter": "datastore_lab.experiment",
    "storage_to_hdf5": "datastore_lab.experiment",
    "storage_to_zarr": "datastore_lab.experiment",
    "storage_to_zip": "datastore_lab.experiment",
    "zip_to_storage": "datastore_lab.experiment",
    "write_bundle": "datastore_lab.bundles",
    "open_bundle": "datastore_lab.bundles",
    "acquire": "datastore_lab.acquire",
    "RingBuffer": "datastore_lab.acquire",
    "grid": "datastore_lab.acquire",
    "SimulatedLaser": "datastore_lab.acquire",
    "HostMonitor": "datastore_lab.acquire",
    "SimulatedCamera": "datastore_lab.acquire",
    "SimulatedDAQ": "datastore_lab.acquire",
    "recommend": "datastore_lab.formats",
    "buffer_size": "datastore_lab.formats",
    "run_name": "datastore_lab.formats",
    "browse": "datastore_lab.notebook",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (the names of the table are text)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: Any) -> None:
    """Make ``%load_ext datastore_lab`` register the magics."""
    from datastore_lab.notebook import load_ipython_extension as load

    load(ipython)
