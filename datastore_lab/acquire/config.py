"""What a TOML file says of a run, in bytes and seconds."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datastore_lab import units
from datastore_lab.acquire.policies import check_policy
from datastore_lab.registry import SUFFIXES

_FORMATS = {"hdf5": ".h5", "zarr": ".zarr", "arrow": ".arrow", "parquet": ".parquet", "csv": ".csv"}
_BOTH = ("hdf5", "arrow")
_COMPRESSIONS = ("none", "gzip", "lz4", "zstd", "blosc")
_OPTIONS = ("compression", "compression_level", "chunk_size")
_MEGABYTE = 1_000_000

Readers = Mapping[str, Callable[[Any], Any]]


class RunConfig(NamedTuple):
    """What a file says of a run; None where it says nothing.

    Attributes
    ----------
    to : list of str
        Files to write.
    ring : dict or None
        One size, as `RingBuffer` takes it, and its path.
    overflow : str or None
    flush_interval : float or None
        Seconds.
    options : dict
        What writers are to be told: ``compression``, ``compression_level``, ``chunk_size`` (samples).
    """

    to: list[str]
    ring: dict[str, Any] | None
    overflow: str | None
    flush_interval: float | None
    options: dict[str, Any]


def read_config(source: str | os.PathLike[str] | Mapping[str, Any]) -> RunConfig:
    """Read the tables ``[storage]`` and ``[ring_buffer]`` of a TOML file.

    Parameters
    ----------
    source : path, or mapping
        A file, or what one says already.

    Returns
    -------
    RunConfig
        Sizes in bytes, durations in seconds; ``size_mb = 500`` is 500,000,000 bytes.

    Raises
    ------
    ValueError
        For a key that is not known, naming the nearest that is, and for a value that makes no sense.
    OSError
        If there is no such file.

    Examples
    --------
    >>> found = read_config({
    ...     "storage": {"format": "both", "output_path": "data/run", "flush_interval_ms": 500},
    ...     "ring_buffer": {"size_mb": 500},
    ... })
    >>> found.to, found.ring, found.flush_interval
    (['data/run.h5', 'data/run.arrow'], {'nbytes': 500000000}, 0.5)
    >>> read_config({"storage": {"compresion": "gzip"}})
    Traceback (most recent call last):
    ValueError: [storage] has no key 'compresion'; did you mean 'compression'?
    """
    found = source if isinstance(source, Mapping) else _load(Path(source))
    _check_names(found, ("storage", "ring_buffer"), "the file")
    storage = _table(found, "storage", _STORAGE)
    ring = _table(found, "ring_buffer", _RING)
    sizes = {key: value for key, value in ring.items() if key != "overflow"}
    options = {key: value for key, value in storage.items() if key in _OPTIONS}
    return RunConfig(
        _files(storage.get("format"), storage.get("output_path")),
        sizes or None,
        ring.get("overflow"),
        storage.get("flush_interval"),
        options,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not valid TOML: {error}") from error


def _table(found: Mapping[str, Any], name: str, readers: Readers) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"[{name}] is {table!r}; it must be a table")  # noqa: TRY004 (a wrong file)
    _check_names(table, tuple(readers), f"[{name}]")
    values: dict[str, Any] = {}
    for key, value in table.items():
        target = str(_SAME.get(key, key))
        if target in values:
            raise ValueError(f"[{name}] says {target!r} twice, once as {key!r}; leave one out")
        try:
            values[target] = readers[key](value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key!r} in [{name}]: {error}") from error
    return values


def _check_names(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{where} has no key {key!r}; {hint}")


def _files(kind: str | None, path: str | None) -> list[str]:
    """Give the files to write: a format and a path without suffix, or with the suffix of that format."""
    if path is None:
        if kind is not None:
            raise ValueError("[storage] has a format and no output_path: say where to write")
        return []
    suffix = Path(path).suffix.lower()
    if kind is None:
        return [path]
    names = _BOTH if kind == "both" else (kind,)
    known = SUFFIXES.get(suffix)
    if known is None:
        return [path + _FORMATS[name] for name in names]
    if known not in names:
        raise ValueError(f"[storage] has the format {kind!r}, and the output_path {path!r} is of another")
    return [path if known == name else str(Path(path).with_suffix(_FORMATS[name])) for name in names]


def _one_of(known: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        text = value.lower() if isinstance(value, str) else value
        if text not in known:
            raise ValueError(f"{value!r} is none of {', '.join(map(repr, known))}")
        return str(text)

    return read


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no whole number above 0")
    return value


def _level(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")  # noqa: TRY004 (a wrong file)
    return value


def _megabytes(value: Any) -> int:
    return units.parse_size(_number(value) * _MEGABYTE)


def _milliseconds(value: Any) -> float:
    return _number(value) / 1000


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{value!r} is no number above 0")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


def _policy(value: Any) -> str:
    check_policy(value)
    return str(value)


_STORAGE: Readers = {
    "format": _one_of((*_FORMATS, "both")),
    "output_path": _text,
    "compression": _one_of(_COMPRESSIONS),
    "compression_level": _level,
    "chunk_size": _whole,
    "flush_interval_ms": _milliseconds,
    "flush_interval": units.parse_duration,
}

_RING: Readers = {
    "size_mb": _megabytes,
    "size": units.parse_size,
    "nbytes": units.parse_size,
    "samples": _whole,
    "seconds": units.parse_duration,
    "memory": _number,
    "path": _text,
    "overflow": _policy,
}

_SAME = {"size_mb": "nbytes", "size": "nbytes", "flush_interval_ms": "flush_interval"}
"""Keys that say the same in another unit."""
