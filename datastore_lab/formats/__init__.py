"""Which format, how much space, what name: the questions before a recording."""

from __future__ import annotations

from datastore_lab.formats.advice import Recommendation, Recommendations, recommend
from datastore_lab.formats.exporting import export_csv
from datastore_lab.formats.measured import Measurement, Measurements
from datastore_lab.formats.measuring import measure
from datastore_lab.formats.naming import run_name
from datastore_lab.formats.sizing import buffer_size, data_rate, disk_space, seconds_to_overflow
from datastore_lab.formats.traits import format_names, format_table, format_traits

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
