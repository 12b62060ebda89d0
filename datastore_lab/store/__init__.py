"""Store and open_store: Python objects at hierarchical keys, wherever they lie."""

from __future__ import annotations

from datastore_lab.store.mapping import Store
from datastore_lab.store.opening import open_store

__all__ = ["Store", "open_store"]
