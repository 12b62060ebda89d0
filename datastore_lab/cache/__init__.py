"""Expensive results, kept under a key that holds everything they depend on.

`cached` keeps what a function returns; the cell magic ``%%cache`` keeps the variables and the output of a
notebook cell. Both are views on a `Store`: any tool that opens the file reads the results.
"""

from __future__ import annotations

from datastore_lab.cache.decorator import Cached, cached
from datastore_lab.cache.entries import CacheWarning
from datastore_lab.cache.hashing import forget_hasher, register_hasher
from datastore_lab.cache.interpolated import Interpolated, interpolated
from datastore_lab.cache.storages import StorageHDF5, StorageMemory

__all__ = [
    "CacheWarning",
    "Cached",
    "Interpolated",
    "StorageHDF5",
    "StorageMemory",
    "cached",
    "forget_hasher",
    "interpolated",
    "register_hasher",
]
