"""What a user knows about a recording, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from datastore_lab.formats.sizing import data_rate, described, sample_size
from datastore_lab.units import parse_duration, parse_frequency

_KINDS = {
    **dict.fromkeys(["images", "image", "video", "frames", "camera"], "images"),
    **dict.fromkeys(["series", "time series", "scalars", "table", "measurements"], "series"),
    **dict.fromkeys(["nested", "scan"], "nested"),
}
_VALUE = 8
"""Bytes of a sample of which nothing is said, where the rate counts bytes: one float64."""
_SPREADSHEETS = {"excel", "libreoffice", "origin"}


class Question(NamedTuple):
    """One question to the decision tree.

    Attributes
    ----------
    kind : {"images", "series", "nested"}
    dimensions : int
        Axes, the sample's included.
    rate : float or None
        Samples per second.
    duration : float or None
        Seconds.
    data_rate : float or None
        Bytes per second.
    nbytes : int or None
        Uncompressed size of the whole recording.
    readers : tuple of str
    simple : bool
        People look at it in a spreadsheet.
    cloud, compression, safety : bool
    """

    kind: str
    dimensions: int
    rate: float | None
    duration: float | None
    data_rate: float | None
    nbytes: int | None
    readers: tuple[str, ...]
    simple: bool
    cloud: bool
    compression: bool
    safety: bool


def ask(
    data: Any,
    *,
    kind: str | None,
    dimensions: int | Sequence[str] | None,
    rate: float | str | None,
    duration: float | str | None,
    readers: str | Sequence[str],
    wishes: tuple[bool, bool, bool],
) -> Question:
    """Normalise what is known; see `recommend`. The wishes are cloud, compression and safety."""
    cloud, compression, safety = wishes
    axes = _axes(data, dimensions, kind)
    named = tuple(readers.split(",")) if isinstance(readers, str) else tuple(readers)
    who = tuple(reader.strip() for reader in named if reader.strip())
    seconds = None if duration is None else parse_duration(duration)
    per_second, sampled = _rates(data, rate)
    return Question(
        kind=_kind(kind, axes),
        dimensions=axes,
        rate=sampled,
        duration=seconds,
        data_rate=per_second,
        nbytes=None if per_second is None or seconds is None else round(per_second * seconds),
        readers=who,
        simple=any(reader.casefold() in _SPREADSHEETS for reader in who),
        cloud=cloud,
        compression=compression,
        safety=safety,
    )


def _axes(data: Any, dimensions: int | Sequence[str] | None, kind: str | None) -> int:
    if dimensions is None:
        usual = {"images": 3, "nested": 4}.get(_KINDS.get(kind or "", ""), 1)
        return max((len(shape) for shape in _shapes(data)), default=usual)
    count = (
        dimensions if isinstance(dimensions, int) and not isinstance(dimensions, bool) else _names(dimensions)
    )
    if count < 1:
        raise ValueError(f"dimensions={dimensions!r}: data has at least one axis")
    return count


def _names(dimensions: Any) -> int:
    if isinstance(dimensions, (str, bool)) or not isinstance(dimensions, Sequence):
        raise TypeError(f"dimensions={dimensions!r} is neither a number nor a list of names")
    return len(dimensions)


def _shapes(data: Any) -> list[tuple[int, ...]]:
    stat = described(data)
    if stat is not None:
        return [info.shape for info in stat.arrays.values()]
    if data is None:
        return []
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], (tuple, list)):
        return [tuple(data[1])]
    if hasattr(data, "shape"):
        return [tuple(data.shape)]
    raise ValueError(
        f"{type(data).__name__} tells nothing about a format; give an array, (dtype, shape) or a device"
    )


def _kind(kind: str | None, axes: int) -> str:
    if kind is None:
        return "nested" if axes > 3 else "images" if axes == 3 else "series"
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} is unknown; known are {', '.join(_KINDS)}")
    return _KINDS[kind]


def _rates(data: Any, rate: float | str | None) -> tuple[float | None, float | None]:
    """Give bytes per second and samples per second, each as far as it is known."""
    stat = described(data)
    if rate is None:
        rate = stat.meta.get("rate") if stat is not None else None
    if rate is None:
        return None, None
    sample = stat if stat is not None else _one_sample(data)
    try:
        sampled = parse_frequency(rate)
    except ValueError:
        per_second = data_rate(rate)
        return per_second, per_second / (_VALUE if sample is None else max(1, sample_size(sample)))
    return (None if sample is None else data_rate(sampled, sample)), sampled


def _one_sample(data: Any) -> Any:
    """Take the sample axis off what is known about the whole."""
    if isinstance(data, tuple):
        return (data[0], tuple(data[1])[1:])
    return None if getattr(data, "dtype", None) is None else (data.dtype, tuple(data.shape)[1:])
