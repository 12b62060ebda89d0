"""The one value and the protocols that everything meets in.

A `Record` is named arrays with named dimensions plus JSON metadata, of a ``kind`` that says which codec
made it. An `Engine` keeps records at hierarchical keys; a `Codec` turns Python objects into records and
back. This module needs nothing but the standard library.
"""

from __future__ import annotations

from datastore_lab.records.checks import (
    COMPACT_ABOVE,
    DURABILITIES,
    MOST_AXES,
    check_columns,
    check_compact_above,
    check_durability,
    check_record,
    check_rows,
    default_dims,
    dims_of,
)
from datastore_lab.records.growing import Growth
from datastore_lab.records.protocols import (
    Appender,
    Appends,
    Codec,
    Engine,
    Locks,
    Maps,
    ReadsWhole,
    Salvages,
)
from datastore_lab.records.reading import gather, normalise_selection
from datastore_lab.records.sources import (
    Block,
    Device,
    Writer,
)
from datastore_lab.records.values import (
    ARRAY_ATTRIBUTES,
    ARRAYS,
    BESIDE,
    CODEC_STATE,
    GROUP,
    RESERVED,
    ArrayInfo,
    Packing,
    Problem,
    Record,
    Repair,
    Selection,
    Span,
    Stat,
    Traits,
)

__all__ = [
    "ARRAYS",
    "ARRAY_ATTRIBUTES",
    "BESIDE",
    "CODEC_STATE",
    "COMPACT_ABOVE",
    "DURABILITIES",
    "GROUP",
    "MOST_AXES",
    "RESERVED",
    "Appender",
    "Appends",
    "ArrayInfo",
    "Block",
    "Codec",
    "Device",
    "Engine",
    "Growth",
    "Locks",
    "Maps",
    "Packing",
    "Problem",
    "ReadsWhole",
    "Record",
    "Repair",
    "Salvages",
    "Selection",
    "Span",
    "Stat",
    "Traits",
    "Writer",
    "check_columns",
    "check_compact_above",
    "check_durability",
    "check_record",
    "check_rows",
    "default_dims",
    "dims_of",
    "gather",
    "normalise_selection",
]
