"""Records in an HDF5 file, behind a rollback journal."""

from __future__ import annotations

from datastore_lab.engines.hdf5.engine import HDF5Engine

__all__ = ["HDF5Engine"]
