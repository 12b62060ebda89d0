"""Files of other programs that were stopped while they wrote, brought back to order in a copy."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from datastore_lab.engines.hdf5.files import open_handle
from datastore_lab.engines.hdf5.marks import find

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.disk import Disk


def salvage(disk: Disk, path: str, target: str) -> str | None:
    """Write a file without its mark to another file; see `Salvages`."""
    source = open_handle(disk, path, os.O_RDONLY)
    try:
        mark, size = find(disk, source), disk.size(source)
    finally:
        disk.close(source)
    if mark is None:
        return None
    shutil.copyfile(path, target)
    copy = open_handle(disk, target, os.O_RDWR)
    try:
        disk.write(copy, memoryview(mark.cleared(size)), mark.at)
        disk.sync(copy)
    finally:
        disk.close(copy)
    end = f", and its end is that of the file, at {size:,} bytes" if mark.swmr else ""
    return f"it is no longer marked as being written{end}"
