"""Experiments as a whole: ``archive`` and ``consolidate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab.cli.progress import bar
from datastore_lab.cli.words import printable
from datastore_lab.errors import BadKey

if TYPE_CHECKING:
    import argparse


def archive(arguments: argparse.Namespace) -> int:
    """Pack the folder of an experiment, or unpack an archive of one."""
    from datastore_lab.experiment import storage_to_zip, zip_to_storage

    if arguments.restore and Path(arguments.path).is_dir():
        raise BadKey(
            f"{arguments.path!r} is a folder; --restore takes the archive of one", key=arguments.path
        )
    return _do(zip_to_storage if arguments.restore else storage_to_zip, arguments)


def consolidate(arguments: argparse.Namespace) -> int:
    """Bring the folder of an experiment into one store."""
    from datastore_lab.experiment import storage_to_hdf5, storage_to_zarr

    target = arguments.target
    zarr = arguments.zarr or (target is not None and Path(target).suffix.lower() == ".zarr")
    return _do(storage_to_zarr if zarr else storage_to_hdf5, arguments)


def _do(work: Any, arguments: argparse.Namespace) -> int:
    with bar(shown=not arguments.quiet) as made:
        done = work(arguments.path, arguments.target, progress=made.watch)
    if not arguments.quiet:
        print(printable(str(done)))
    return 0
