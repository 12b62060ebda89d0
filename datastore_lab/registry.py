"""Names to classes, without importing any of them before they are asked for.

A registry knows the parts that come with this package as ``name -> "module:attribute"`` and looks for
entry points of other distributions only when a name is not among them. A broken plugin warns and is left
out; it never breaks what does not need it.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from datastore_lab.errors import MissingExtra, NotFound


class Plugin(NamedTuple):
    """Where a part is defined, and which extra of this package brings what it needs."""

    target: str
    extra: str | None = None


class Registry:
    """Parts of one kind, by name.

    Parameters
    ----------
    group : str
        Entry-point group of other distributions, such as ``"datastore_lab.engines"``.
    builtin : mapping of str to Plugin
        The parts that come with this package.

    Examples
    --------
    >>> shapes = Registry("example.shapes", {"path": Plugin("pathlib:PurePosixPath")})
    >>> shapes.load("path")
    <class 'pathlib.PurePosixPath'>
    """

    def __init__(self, group: str, builtin: Mapping[str, Plugin]) -> None:
        self.group = group
        self._builtin = dict(builtin)
        self._objects: dict[str, Any] = {}

    def names(self) -> list[str]:
        """List the names of all parts, those of other distributions included."""
        return sorted({*self._builtin, *self._objects, *(point.name for point in self._points())})

    def builtin(self) -> Iterator[str]:
        """Yield the names of the parts that come with this package."""
        yield from self._builtin

    def register(self, name: str, part: Any) -> None:
        """Add a part of one's own for this session; it takes precedence over one of the same name."""
        self._objects[name] = part

    def load(self, name: str) -> Any:
        """Import and return the part of this name.

        Raises
        ------
        NotFound
            If there is none; the message lists the nearest names.
        MissingExtra
            If a library that the part needs is not installed.
        """
        if name not in self._objects:
            self._objects[name] = self._import(name)
        return self._objects[name]

    def find(self, name: str) -> Any | None:
        """Return the part of this name, or None if there is none or if its plugin is broken."""
        if name in self._objects or name in self._builtin:
            return self.load(name)
        for point in self._points():
            if point.name == name:
                return self._load_point(point)
        return None

    def _import(self, name: str) -> Any:
        if name not in self._builtin:
            part = self.find(name)
            if part is None:
                raise NotFound(self._unknown(name), key=name)
            return part
        plugin = self._builtin[name]
        module, _, attribute = plugin.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if plugin.extra is None or (error.name or "").startswith("datastore_lab"):
                raise
            raise MissingExtra(
                f"{name!r} needs the package {error.name!r}: pip install 'datastore-lab[{plugin.extra}]'",
                key=name,
            ) from error

    def _load_point(self, point: EntryPoint) -> Any | None:
        try:
            part = point.load()
        except Exception as error:  # (someone else's module may raise anything at import)
            warnings.warn(
                f"the plugin {point.name!r} of {self.group} can't be loaded ({point.value}): {error!r}",
                RuntimeWarning,
                stacklevel=4,
            )
            return None
        self._objects[point.name] = part
        return part

    def _points(self) -> list[EntryPoint]:
        return list(entry_points(group=self.group))

    def _unknown(self, name: str) -> str:
        known = self.names()
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        kind = self.group.rpartition(".")[2]
        return f"there is no {name!r} among the {kind}; did you mean {', '.join(map(repr, near))}?"


ENGINES = Registry(
    "datastore_lab.engines",
    {
        "memory": Plugin("datastore_lab.engines.memory:MemoryEngine"),
        "hdf5": Plugin("datastore_lab.engines.hdf5:HDF5Engine"),
        "zarr": Plugin("datastore_lab.engines.zarr:ZarrEngine"),
        "s3": Plugin("datastore_lab.engines.zarr.s3:S3Engine", "s3"),
        "parquet-folder": Plugin("datastore_lab.engines.parquet:ParquetFolderEngine"),
        "sqlite": Plugin("datastore_lab.engines.sql:SQLiteEngine"),
        "sql": Plugin("datastore_lab.engines.sql:SQLEngine"),
        "arrow": Plugin("datastore_lab.engines.arrow:ArrowEngine"),
        "parquet": Plugin("datastore_lab.engines.parquet_file:ParquetFileEngine"),
        "csv": Plugin("datastore_lab.engines.csv:CSVEngine"),
        "trials": Plugin("datastore_lab.engines.trials:TrialsEngine"),
    },
)

CODECS = Registry(
    "datastore_lab.codecs",
    {
        "array": Plugin("datastore_lab.codecs.array:ArrayCodec"),
        "value": Plugin("datastore_lab.codecs.value:ValueCodec"),
        "table": Plugin("datastore_lab.codecs.table:TableCodec"),
        "xarray": Plugin("datastore_lab.codecs.xarray:XarrayCodec"),
        "object": Plugin("datastore_lab.codecs.protocol:ObjectCodec"),
        "arrays": Plugin("datastore_lab.codecs.xarray:ArraysCodec"),
        "stream": Plugin("datastore_lab.codecs.xarray:ArraysCodec"),
    },
)

DEVICES = Registry(
    "datastore_lab.devices",
    {
        "host-monitor": Plugin("datastore_lab.acquire.devices.host:HostMonitor"),
        "file": Plugin("datastore_lab.acquire.devices.replay:FileReplay"),
        "function": Plugin("datastore_lab.acquire.devices.function:from_function"),
        "bluesky": Plugin("datastore_lab.acquire.devices.bluesky:from_bluesky"),
        "visa": Plugin("datastore_lab.acquire.devices.visa:from_visa", "visa"),
        "serial": Plugin("datastore_lab.acquire.devices.serial_port:from_serial", "serial"),
        "mqtt": Plugin("datastore_lab.acquire.devices.mqtt:from_mqtt", "mqtt"),
        "lsl": Plugin("datastore_lab.acquire.devices.lsl:from_lsl", "lsl"),
        "epics": Plugin("datastore_lab.acquire.devices.epics:from_epics", "epics"),
        "basler": Plugin("datastore_lab.acquire.devices.basler:BaslerCamera", "basler"),
        "simulated-camera": Plugin("datastore_lab.acquire.devices.camera:SimulatedCamera"),
        "simulated-daq": Plugin("datastore_lab.acquire.devices.daq:SimulatedDAQ"),
        "simulated-laser": Plugin("datastore_lab.acquire.devices.optics:SimulatedLaser"),
        "simulated-power-meter": Plugin("datastore_lab.acquire.devices.optics:SimulatedPowerMeter"),
    },
)

WRITERS = Registry(
    "datastore_lab.writers",
    {
        "hdf5": Plugin("datastore_lab.acquire.writers:HDF5Writer"),
        "zarr": Plugin("datastore_lab.acquire.writers:ZarrWriter"),
        "arrow": Plugin("datastore_lab.acquire.writers:ArrowDocumentWriter"),
        "parquet": Plugin("datastore_lab.acquire.writers:ParquetDocumentWriter"),
        "csv": Plugin("datastore_lab.acquire.writers:CSVWriter"),
    },
)

SUFFIXES = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".nc": "hdf5",
    ".zarr": "zarr",
    ".parquets": "parquet-folder",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
}
"""Engine and writer by the suffix of a file; others are looked for under the suffix without its dot."""

DATABASES = {"sqlite": "sql", "postgresql": "sql", "mysql": "sql", "mariadb": "sql"}
"""Engine by the scheme of a database's URL; what may follow a plus in it is the driver."""
