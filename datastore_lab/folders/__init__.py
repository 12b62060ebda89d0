"""Transactions on a tree of folders and files: what engines that keep a folder share.

`datastore_lab.folders.files` is the one seam to the disk, `datastore_lab.folders.overlay` a tree with
pending changes, `datastore_lab.folders.log` the redo log that makes them true as a whole.
"""

from __future__ import annotations
