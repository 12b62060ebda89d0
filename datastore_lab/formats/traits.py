"""What the formats can do, as their engines declare it."""

from __future__ import annotations

from datastore_lab.errors import NotFound
from datastore_lab.formats.grid import Grid
from datastore_lab.records import Traits
from datastore_lab.registry import ENGINES, WRITERS

_FILE_ENGINES = ("hdf5", "zarr", "parquet-folder", "sqlite", "sql", "arrow", "parquet", "csv")


def format_names() -> tuple[str, ...]:
    """Name the formats that a recording can be advised for."""
    # trials come from people, not from a device; S3 is a place, whose format is Zarr
    own = {*_FILE_ENGINES, "memory", "trials", "s3"}
    return (*_FILE_ENGINES, *(name for name in ENGINES.names() if name not in own))


def format_traits(name: str) -> Traits:
    """Say what a format can do.

    Parameters
    ----------
    name : str
        Such as ``"hdf5"``; see `format_names`.

    Raises
    ------
    NotFound
        If the format is unknown; the message lists the nearest names.

    Examples
    --------
    >>> format_traits("csv").label
    'CSV'
    """
    traits = ENGINES.load(name).traits
    if not isinstance(traits, Traits):
        raise NotFound(f"the engine {name!r} does not declare its traits", key=name)
    return traits


def has_writer(name: str) -> bool:
    """Tell whether a run can be written in this format."""
    return name in WRITERS.names()


def format_table() -> Grid:
    """Compare the formats, one row each.

    Returns
    -------
    Grid
        Shows itself as text and as HTML; ``format_table().to_markdown()`` is the table of the guide.
    """
    header = (
        "Format",
        "Holds",
        "Compresses",
        "Grows",
        "Tree",
        "N-D",
        "Parallel writers",
        "Cloud",
        "Opens in",
        "Writer",
    )
    return Grid(header, [_row(name) for name in format_names()])


def _row(name: str) -> tuple[str, ...]:
    traits = format_traits(name)
    able = (
        traits.compresses,
        traits.appends,
        traits.hierarchical,
        traits.n_dimensional,
        traits.parallel_write,
        traits.cloud,
    )
    marks = ("yes" if can else "no" for can in able)
    writer = "yes" if has_writer(name) else "not in this version"
    return (traits.label, traits.structure, *marks, ", ".join(traits.opens_in), writer)
