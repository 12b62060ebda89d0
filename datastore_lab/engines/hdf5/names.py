"""Attribute names that belong to the layout, or to netCDF, and are not shown as the user's."""

from __future__ import annotations

from typing import Any

from datastore_lab import integrity
from datastore_lab.engines.hdf5 import attrs, dims, types

KIND = "lab_kind"
REFUSED = "lab_refused"
DEAD = "lab_dead"
NODE_RESERVED = frozenset({KIND, REFUSED, DEAD, integrity.SEAL, integrity.VERSION, "_NCProperties"})
SCALE_NAMES = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"})


class _Reserved(frozenset[str]):
    """Names, and the numbered pages of sums."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(integrity.SUMS))


ARRAY_RESERVED = _Reserved(
    SCALE_NAMES
    | {dims.NAMES, types.TYPE, types.ESCAPED, "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict"}
)
_TIMED = _Reserved(ARRAY_RESERVED | types.CF_NAMES)


def reserved(dataset: Any) -> frozenset[str]:
    """Give the attribute names of an array that belong to the layout; on a time also those of CF."""
    name = attrs.get(dataset, types.TYPE)
    timed = isinstance(name, str) and name[1:2] in {"M", "m"}
    return _TIMED if timed else ARRAY_RESERVED
