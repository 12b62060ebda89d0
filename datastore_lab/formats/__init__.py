"""Which format, how much space, what name: the questions before a recording. And text, after it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from datastore_lab.formats.advice import Recommendation, Recommendations, recommend
from datastore_lab.formats.measured import Measurement, Measurements
from datastore_lab.formats.naming import run_name
from datastore_lab.formats.sizing import buffer_size, data_rate, disk_space, seconds_to_overflow
from datastore_lab.formats.traits import format_names, format_table, format_traits

if TYPE_CHECKING:
    from datastore_lab.formats.exporting import export_csv
    from datastore_lab.formats.measuring import measure

_HOMES = {
    "export_csv": "datastore_lab.formats.exporting",
    "measure": "datastore_lab.formats.measuring",
}
"""What needs numpy: imported when it is asked for."""

__all__ = [
    "Measurement",
    "Measurements",
    "Recommendation",
    "Recommendations",
    "buffer_size",
    "data_rate",
    "disk_space",
    "export_csv",
    "format_names",
    "format_table",
    "format_traits",
    "measure",
    "recommend",
    "run_name",
    "seconds_to_overflow",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
