"""What a `StreamWriter` is told: channels, formats, compression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

_OWN = ("time", "sequence", "device_time")


class StorageFormat(Enum):
    """Which files a `StreamWriter` writes; `BOTH` are HDF5 and Arrow.

    Examples
    --------
    >>> StorageFormat.BOTH.suffixes
    ('.h5', '.arrow')
    """

    HDF5 = "hdf5"
    ARROW = "arrow"
    BOTH = "both"
    ZARR = "zarr"
    PARQUET = "parquet"
    CSV = "csv"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files, one per format."""
        return (".h5", ".arrow") if self is StorageFormat.BOTH else (_SUFFIXES[self.value],)


_SUFFIXES = {"hdf5": ".h5", "arrow": ".arrow", "zarr": ".zarr", "parquet": ".parquet", "csv": ".csv"}


class CompressionType(Enum):
    """How chunks of HDF5 and Zarr are compressed; Arrow and CSV are not, and Parquet has its own way."""

    NONE = "none"
    GZIP = "gzip"
    LZ4 = "lz4"
    ZSTD = "zstd"
    BLOSC = "blosc"


@dataclass(frozen=True)
class ChannelConfig:
    """One input of a data acquisition card.

    Parameters
    ----------
    index : int
        Number of the input.
    name : str
        Name of its array in the files.
    minimum, maximum : float
        Range of the input, in `units`.
    units : str, default ``"V"``

    Raises
    ------
    ValueError
        If the range is none, or the name is that of an array that every stream has.

    Examples
    --------
    >>> ChannelConfig(0, "AI0", -10.0, 10.0)
    ChannelConfig(index=0, name='AI0', minimum=-10.0, maximum=10.0, units='V')
    """

    index: int
    name: str
    minimum: float
    maximum: float
    units: str = "V"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum < self.maximum):
            raise ValueError(
                f"the channel {self.name!r} has the range {self.minimum} to {self.maximum}, which is none"
            )
        if not self.name or self.name in _OWN:
            raise ValueError(f"a channel can't be named {self.name!r}: {', '.join(_OWN)} are in every stream")
