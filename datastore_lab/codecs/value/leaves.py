"""Values without parts: how each type that JSON lacks is written as JSON, and read back."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import math
import pathlib
import re
import struct
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import MissingExtra, NotStorable

LONG_BYTES = 1024
"""Bytes longer than this become an array."""

_PLAIN_INT = 1 << 256

_NAN = struct.pack("<d", math.nan)
_FRACTION = re.compile(r"(-?[0-9]{1,4000})(?:/([0-9]{1,4000}))?", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,60}(?:/[A-Za-z0-9_+-]{1,60}){0,3}", re.ASCII)


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
        return {"offset": _write_delta(shift), **({"name": write_text(name[0])} if name else {})}
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return {"zone": zone.key}
    raise NotStorable(f"the time zone {zone!r} can't be stored; use zoneinfo.ZoneInfo or dt.timezone")


def _zone(described: Any) -> dt.tzinfo | None:
    if described is None or described == "UTC":
        return described and dt.UTC
    if "zone" in described:
        return _named_zone(described["zone"])
    name = [read_text(described["name"])] if "name" in described else []
    return dt.timezone(_read_delta(described["offset"]), *name)


def _named_zone(key: str) -> zoneinfo.ZoneInfo:
    if not _ZONE.fullmatch(key):  # the key is looked up as the path of a file
        raise ValueError(f"{key!r:.80} is not the name of a time zone")
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, OSError) as error:
        raise MissingExtra(
            f"the time zone {key!r} is unknown on this computer; pip install tzdata", key=key
        ) from error


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


def _here(pure: type[pathlib.PurePath], concrete: type[pathlib.PurePath]) -> Callable[[str], Any]:
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


def is_unicode(text: str) -> bool:
    """Say whether text is valid Unicode: names of files may have lone surrogates, which UTF-8 can't hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(text: str) -> Any:
    """Describe text as JSON, also where it holds lone surrogates."""
    return text if is_unicode(text) else {"$str": text.encode("utf-8", "surrogatepass").hex()}


def read_text(described: Any) -> str:
    """Undo `write_text`."""
    if isinstance(described, str):
        return described
    return bytes.fromhex(described["$str"]).decode("utf-8", "surrogatepass")


def write_float(number: float) -> Any:
    """Describe a float as JSON; a NaN that is not the usual one by its bytes."""
    if not math.isnan(number) or struct.pack("<d", number) == _NAN:
        return number
    return {"$nan": struct.pack("<d", number).hex()}


def read_float(described: Any) -> float:
    """Undo `write_float`."""
    if not isinstance(described, Mapping):
        return float(described)
    number: float = struct.unpack("<d", bytes.fromhex(described["$nan"]))[0]
    return number


def _write_fraction(number: fractions.Fraction) -> Any:
    if is_short(number.numerator) and is_short(number.denominator):
        return str(number)
    return [hex(number.numerator), hex(number.denominator)]


def _read_fraction(described: Any) -> fractions.Fraction:
    if not isinstance(described, str):
        return fractions.Fraction(*(int(part, 16) for part in described))
    found = _FRACTION.fullmatch(described)  # an exponent would be computed, however large
    if found is None:
        raise ValueError(f"{described!r:.80} is not a fraction")
    return fractions.Fraction(*(int(part) for part in found.groups("1")))


def _path(cls: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda described: cls(read_text(described))


def _write_path(path: pathlib.PurePath) -> Any:
    return write_text(str(path))


LEAVES: dict[type, Leaf] = {
    int: Leaf("$int", hex, lambda text: int(text, 16)),
    complex: Leaf(
        "$complex",
        lambda z: [write_float(z.real), write_float(z.imag)],
        lambda parts: complex(*map(read_float, parts)),
    ),
    bytes: Leaf("$bytes", bytes.hex, bytes.fromhex),
    bytearray: Leaf("$bytearray", bytearray.hex, bytearray.fromhex),
    dt.datetime: Leaf("$datetime", _write_moment, _read_moment(dt.datetime)),
    dt.time: Leaf("$time", _write_moment, _read_moment(dt.time)),
    dt.date: Leaf("$date", dt.date.isoformat, dt.date.fromisoformat),
    dt.timedelta: Leaf("$timedelta", _write_delta, _read_delta),
    dt.timezone: Leaf("$timezone", _offset, _zone),
    zoneinfo.ZoneInfo: Leaf("$zoneinfo", _offset, _zone),
    decimal.Decimal: Leaf("$decimal", str, decimal.Decimal),
    fractions.Fraction: Leaf("$fraction", _write_fraction, _read_fraction),
    uuid.UUID: Leaf("$uuid", str, uuid.UUID),
    pathlib.PurePosixPath: Leaf("$pure_posix_path", _write_path, _path(pathlib.PurePosixPath)),
    pathlib.PureWindowsPath: Leaf("$pure_windows_path", _write_path, _path(pathlib.PureWindowsPath)),
    pathlib.PosixPath: Leaf(
        "$posix_path", _write_path, _path(_here(pathlib.PurePosixPath, pathlib.PosixPath))
    ),
    pathlib.WindowsPath: Leaf(
        "$windows_path", _write_path, _path(_here(pathlib.PureWindowsPath, pathlib.WindowsPath))
    ),
    type(...): Leaf("$ellipsis", lambda _: True, lambda _: ...),
    type(NotImplemented): Leaf("$not_implemented", lambda _: True, lambda _: NotImplemented),
}
BY_TAG: dict[str, Callable[[Any], Any]] = {
    **{leaf.tag: leaf.from_json for leaf in LEAVES.values()},
    "$str": lambda described: read_text({"$str": described}),
    "$nan": lambda described: read_float({"$nan": described}),
    "$dtype": dtypes.parse,
}

_READABLE = frozenset("biuf")


def write_numpy(value: np.generic) -> dict[str, Any] | None:
    """Describe a numpy scalar as JSON; None for text, bytes and structured ones."""
    array = np.asarray(value)
    if array.dtype.kind not in "biufcmM":
        return None
    described: dict[str, Any] = {"dtype": dtypes.name(array.dtype), "bytes": array.tobytes().hex()}
    if array.dtype.kind in _READABLE and array.dtype.itemsize <= 8 and not np.isnan(array):
        described = {"dtype": described["dtype"], "value": array.item()}
    elif array.dtype.kind in "mM" and np.datetime_data(array.dtype)[0] != "generic":
        described["text"] = str(value)
    return described


def read_numpy(described: dict[str, Any]) -> Any:
    """Undo `write_numpy`."""
    dtype = dtypes.parse(described["dtype"])
    if "bytes" in described:
        return np.frombuffer(bytes.fromhex(described["bytes"]), dtype, 1)[0]
    if dtype.kind not in _READABLE or type(described["value"]) not in {bool, int, float}:
        raise ValueError(f"{dtype} is not the type of a number")  # a text type could claim any size
    return np.array([described["value"]], dtype)[0]
