"""Records in a folder in Zarr format 3, behind a redo log."""

from __future__ import annotations

from datastore_lab.engines.zarr.engine import ZarrEngine

__all__ = ["ZarrEngine"]
