"""Experiments: a design of blocks and trials, and what participants did, in readable folders."""

from __future__ import annotations

from datastore_lab.experiment.archive import storage_to_zip, zip_to_storage
from datastore_lab.experiment.consolidate import storage_to_hdf5, storage_to_zarr
from datastore_lab.experiment.design import Array, Block, Design, Trial
from datastore_lab.experiment.files import makedirs, read_hdf5, write_hdf5
from datastore_lab.experiment.storage import Storage, StorageWriter
from datastore_lab.experiment.tasks import TaskReader, TaskWriter, TrialWriter

__all__ = [
    "Array",
    "Block",
    "Design",
    "Storage",
    "StorageWriter",
    "TaskReader",
    "TaskWriter",
    "Trial",
    "TrialWriter",
    "makedirs",
    "read_hdf5",
    "storage_to_hdf5",
    "storage_to_zarr",
    "storage_to_zip",
    "write_hdf5",
    "zip_to_storage",
]
