"""The magics ``%%cache`` and ``%cache``: cells that run once for everything that they depend on."""

from __future__ import annotations

from datastore_lab.notebook.caching.magic import CacheMagics

__all__ = ["CacheMagics"]
