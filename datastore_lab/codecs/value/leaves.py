"""Values without parts: how each type that JSON lacks is written as JSON, and read back."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import NotStorable

LONG_BYTES = 1024
"""Bytes longer than this become an array."""

_PLAIN_INT = 1 << 256


class Leaf(NamedTuple):
    """The tag of a type, and functions between its values and JSON."""

    tag: str
    to_json: Callable[[Any], Any]
    from_json: Callable[[Any], Any]


def _offset(zone: dt.tzinfo | None) -> Any:
    """Describe a time zone: seconds (and a name) for a fixed offset, the key of an IANA zone, or None."""
    if zone is None or zone is dt.UTC:
        return zone and "UTC"
    if type(zone) is dt.timezone:
        shift, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return {"offset": _write_delta(shift), **({"name": name[0]} if name else {})}
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return {"zone": zone.key}
    raise NotStorable(f"the time zone {zone!r} can't be stored; use zoneinfo.ZoneInfo or dt.timezone")


def _zone(described: Any) -> dt.tzinfo | None:
    if described is None or described == "UTC":
        return described and dt.UTC
    if "zone" in described:
        return zoneinfo.ZoneInfo(described["zone"])
    name = [described["name"]] if "name" in described else []
    return dt.timezone(_read_delta(described["offset"]), *name)


def _write_moment(moment: dt.datetime | dt.time) -> Any:
    zone, text = _offset(moment.tzinfo), moment.replace(tzinfo=None).isoformat()
    return {"local": text, "tz": zone, "fold": moment.fold} if zone or moment.fold else text


def _read_moment(cls: Any) -> Callable[[Any], Any]:
    def read(state: Any) -> Any:
        if isinstance(state, str):
            return cls.fromisoformat(state)
        return cls.fromisoformat(state["local"]).replace(tzinfo=_zone(state["tz"]), fold=state["fold"])

    return read


def _write_delta(delta: dt.timedelta) -> list[int]:
    return [delta.days, delta.seconds, delta.microseconds]


def _read_delta(parts: list[int]) -> dt.timedelta:
    return dt.timedelta(*parts)


def _read_path(pure: type[pathlib.PurePath], concrete: type[pathlib.PurePath]) -> Callable[[str], Any]:
    """Give the class to read a path with: a concrete path of another system names nothing here."""
    return concrete if issubclass(type(pathlib.Path()), concrete) else pure


FACTORIES: dict[str | None, Any] = {
    None: None,
    **{cls.__name__: cls for cls in (list, dict, set, int, float, str, tuple, bool, bytes)},
}
"""What the factory of a defaultdict may be."""


def is_short(number: int) -> bool:
    """Say whether JSON should hold an integer as it is; decimal text of long ones is slow and limited."""
    return -_PLAIN_INT < number < _PLAIN_INT


def check_text(text: str, where: Callable[[], str]) -> str:
    """Return text that UTF-8 can hold.

    Raises
    ------
    NotStorable
        For a lone surrogate; `where` is called for the path.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotStorable(
            f"{where()} holds text with a lone surrogate, which is not valid Unicode: {text[:40]!r}",
            key=where(),
        ) from error
    return text


LEAVES: dict[type, Leaf] = {
    int: Leaf("$int", hex, lambda text: int(text, 16)),
    complex: Leaf("$complex", lambda z: [z.real, z.imag], lambda parts: complex(*map(float, parts))),
    bytes: Leaf("$bytes", bytes.hex, bytes.fromhex),
    bytearray: Leaf("$bytearray", bytearray.hex, bytearray.fromhex),
    dt.datetime: Leaf("$datetime", _write_moment, _read_moment(dt.datetime)),
    dt.time: Leaf("$time", _write_moment, _read_moment(dt.time)),
    dt.date: Leaf("$date", dt.date.isoformat, dt.date.fromisoformat),
    dt.timedelta: Leaf("$timedelta", _write_delta, _read_delta),
    dt.timezone: Leaf("$timezone", _offset, _zone),
    zoneinfo.ZoneInfo: Leaf("$zoneinfo", _offset, _zone),
    decimal.Decimal: Leaf("$decimal", str, decimal.Decimal),
    fractions.Fraction: Leaf("$fraction", str, fractions.Fraction),
    uuid.UUID: Leaf("$uuid", str, uuid.UUID),
    pathlib.PurePosixPath: Leaf("$pure_posix_path", str, pathlib.PurePosixPath),
    pathlib.PureWindowsPath: Leaf("$pure_windows_path", str, pathlib.PureWindowsPath),
    pathlib.PosixPath: Leaf("$posix_path", str, _read_path(pathlib.PurePosixPath, pathlib.PosixPath)),
    pathlib.WindowsPath: Leaf("$windows_path", str, _read_path(pathlib.PureWindowsPath, pathlib.WindowsPath)),
    type(...): Leaf("$ellipsis", lambda _: True, lambda _: ...),
    type(NotImplemented): Leaf("$not_implemented", lambda _: True, lambda _: NotImplemented),
}
BY_TAG = {leaf.tag: leaf for leaf in LEAVES.values()}

_READABLE = frozenset("biuf")


def write_numpy(value: np.generic) -> dict[str, Any] | None:
    """Describe a numpy scalar as JSON; None for text, bytes and structured ones."""
    array = np.asarray(value)
    if array.dtype.kind not in "biufcmM":
        return None
    described: dict[str, Any] = {"dtype": dtypes.name(array.dtype), "bytes": array.tobytes().hex()}
    if array.dtype.kind in _READABLE and array.dtype.itemsize <= 8:
        described = {"dtype": described["dtype"], "value": array.item()}
    elif array.dtype.kind in "mM":
        described["text"] = str(value)
    return described


def read_numpy(described: dict[str, Any]) -> Any:
    """Undo `write_numpy`."""
    dtype = dtypes.parse(described["dtype"])
    if "bytes" in described:
        return np.frombuffer(bytes.fromhex(described["bytes"]), dtype, 1)[0]
    return np.array([described["value"]], dtype)[0]
