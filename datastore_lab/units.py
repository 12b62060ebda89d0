"""Sizes in bytes, durations in seconds, rates per second: from text and to text.

Everything inside this package counts in bytes, seconds, and samples or bytes per second. Text such as
``"500 MB"`` or ``"5 s"`` is understood wherever a person writes it. Decimal prefixes mean powers of ten
and binary prefixes powers of two (IEC 80000-13): ``1 MB`` is 1,000,000 bytes and ``1 MiB`` is 1,048,576.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real
from types import MappingProxyType
from typing import Any

_NUMBER_AND_UNIT = re.compile(r"\s*(\d+(?:_\d+)*(?:\.\d*)?(?:[eE][+-]?\d{1,2})?|\.\d+)\s*(\D*?)\s*", re.ASCII)

SIZES: Mapping[str, int] = MappingProxyType(
    {
        "B": 1,
        **{f"{prefix}B": 1000 ** (power + 1) for power, prefix in enumerate("kMGTP")},
        **{f"{prefix}iB": 1024 ** (power + 1) for power, prefix in enumerate("KMGTP")},
    }
)
"""Bytes per unit."""

DURATIONS: Mapping[str, Decimal] = MappingProxyType(
    {
        "ns": Decimal("1e-9"),
        "us": Decimal("1e-6"),
        "ms": Decimal("1e-3"),
        "s": Decimal(1),
        "min": Decimal(60),
        "h": Decimal(3600),
        "d": Decimal(86400),
    }
)
"""Seconds per unit."""

FREQUENCIES: Mapping[str, int] = MappingProxyType(
    {"Hz": 1, "kHz": 1000, "MHz": 10**6, "GHz": 10**9, "S/s": 1, "kS/s": 1000, "MS/s": 10**6, "fps": 1}
)
"""Samples per second per unit."""

_SIZE_WORDS = {"byte": "B", "bytes": "B", "KB": "kB"}
_DURATION_WORDS = {
    "\u00b5s": "us",
    "\u03bcs": "us",
    **dict.fromkeys(["sec", "second", "seconds"], "s"),
    **dict.fromkeys(["minute", "minutes"], "min"),
    **dict.fromkeys(["hour", "hours"], "h"),
    **dict.fromkeys(["day", "days"], "d"),
}
_FREQUENCY_WORDS = dict.fromkeys(["/s", "1/s", "samples/s", "frames/s"], "Hz")


def parse_size(size: str | float) -> int:
    """Read a size.

    Parameters
    ----------
    size : str or number
        Text such as ``"500 MB"`` or ``"2 GiB"``, or a whole number of bytes.

    Returns
    -------
    int
        Bytes; text that gives a fraction of a byte is rounded up.

    Raises
    ------
    ValueError
        If it is not a size; the message names it.

    Examples
    --------
    >>> parse_size("500 MB"), parse_size("500 MiB"), parse_size(512)
    (500000000, 524288000, 512)
    >>> parse_size("500 Mb")
    Traceback (most recent call last):
    ...
    ValueError: '500 Mb' is not a size; did you mean '500 MB'? Units: B, kB, MB, ...
    """
    if isinstance(size, str):
        return math.ceil(_parse(size, "size", SIZES, _SIZE_WORDS))
    number = _plain(size, "size", "bytes")
    if not number.is_integer():
        raise ValueError(f"{size!r} is not a size: bytes are whole")
    return int(size)


def parse_duration(duration: str | float) -> float:
    """Read a duration.

    Parameters
    ----------
    duration : str or number
        Text such as ``"5 s"``, ``"250 ms"`` or ``"2 h"``, or seconds.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    ValueError
        If it is not a duration; the message names it.

    Examples
    --------
    >>> parse_duration("250 ms"), parse_duration("2 h"), parse_duration(5)
    (0.25, 7200.0, 5.0)
    """
    if isinstance(duration, str):
        return float(_parse(duration, "duration", DURATIONS, _DURATION_WORDS))
    return _plain(duration, "duration", "seconds")


def parse_rate(rate: str | float) -> float:
    """Read a data rate.

    Parameters
    ----------
    rate : str or number
        Text such as ``"400 MB/s"`` or ``"2 GB/min"``, or bytes per second.

    Returns
    -------
    float
        Bytes per second.

    Raises
    ------
    ValueError
        If it is not a data rate; the message names it.

    Examples
    --------
    >>> parse_rate("400 MB/s")
    400000000.0
    """
    if not isinstance(rate, str):
        return _plain(rate, "data rate", "bytes per second")
    size, slash, per = rate.partition("/")
    per = _DURATION_WORDS.get(per.strip(), per.strip())
    if not slash or per not in DURATIONS:
        raise ValueError(f"{rate!r} is not a data rate; write it like '400 MB/s'")
    try:
        amount = _parse(size, "size", SIZES, _SIZE_WORDS)
    except ValueError as error:
        raise ValueError(f"{rate!r} is not a data rate: {error}") from None
    return float(amount / DURATIONS[per])


def parse_frequency(frequency: str | float) -> float:
    """Read a sampling rate.

    Parameters
    ----------
    frequency : str or number
        Text such as ``"10 kHz"``, ``"30 fps"`` or ``"2 MS/s"``, or samples per second.

    Returns
    -------
    float
        Samples per second.

    Raises
    ------
    ValueError
        If it is not a sampling rate; the message names it.

    Examples
    --------
    >>> parse_frequency("10 kHz"), parse_frequency("30 fps"), parse_frequency(0.5)
    (10000.0, 30.0, 0.5)
    """
    if isinstance(frequency, str):
        return float(_parse(frequency, "sampling rate", FREQUENCIES, _FREQUENCY_WORDS))
    return _plain(frequency, "sampling rate", "samples per second")


def format_size(size: float, *, binary: bool = False) -> str:
    """Write a number of bytes for people, with three significant digits.

    Parameters
    ----------
    size : number
        Bytes.
    binary : bool, default False
        Use KiB, MiB, ... instead of kB, MB, ...

    Examples
    --------
    >>> format_size(33_177_600_000), format_size(2**20), format_size(2**20, binary=True), format_size(999)
    ('33.2 GB', '1.05 MB', '1 MiB', '999 B')
    """
    units = [unit for unit in SIZES if unit == "B" or ("i" in unit) == binary]
    return _scaled(size, [(unit, SIZES[unit]) for unit in units])


def format_duration(seconds: float) -> str:
    """Write a number of seconds for people.

    Examples
    --------
    >>> format_duration(0.0015), format_duration(42), format_duration(5400), format_duration(90061)
    ('1.5 ms', '42 s', '1 h 30 min', '1 d 1 h')
    """
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds!r} can't be written with a unit")
    if not seconds:
        return "0 s"
    if abs(seconds) < 60:
        units = [(unit, float(DURATIONS[unit])) for unit in ("ns", "us", "ms", "s")]
        text = _scaled(seconds, units)
        return "1 min" if text == "60 s" else text
    left, parts = round(abs(seconds)), []
    for unit in ("d", "h", "min", "s"):
        count, left = divmod(left, int(DURATIONS[unit]))
        if count:
            parts.append(f"{count} {unit}")
    return ("-" if seconds < 0 else "") + " ".join(parts[:2])


def _scaled(value: float, units: list[tuple[str, float]]) -> str:
    """Write with the largest unit that leaves at least 1, after rounding to three digits."""
    if not math.isfinite(value):
        raise ValueError(f"{value!r} can't be written with a unit")
    rounded = [(name, float(f"{value / scale:.3g}")) for name, scale in units]
    fitting = [(name, number) for name, number in rounded if abs(number) >= 1]
    name, number = fitting[-1] if fitting else rounded[0]
    return f"{number:.3g} {name}" if abs(number) < 1000 else f"{number:.0f} {name}"


def _parse(
    text: str, what: str, units: Mapping[str, int] | Mapping[str, Decimal], words: Mapping[str, str]
) -> Decimal:
    found = _NUMBER_AND_UNIT.fullmatch(text)
    unit = words.get(found[2], found[2]) if found else ""
    if found is None or unit not in units:
        raise ValueError(f"{text!r} is not a {what};{_hint(found, units)} Units: {', '.join(units)}")
    return Decimal(found[1].replace("_", "")) * units[unit]


def _hint(found: re.Match[str] | None, units: Mapping[str, object]) -> str:
    """Guess what was meant where only the case of the letters is wrong."""
    if found is None:
        return " write a number and a unit."
    if not found[2]:
        return " the unit is missing."
    near = [unit for unit in units if unit.casefold() == found[2].casefold()]
    return f" did you mean '{found[1]} {near[0]}'?" if near else f" {found[2]!r} is not a unit of it."


def _plain(value: Any, what: str, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{value!r} is not a {what}: give a number of {unit} or text with a unit")  # noqa: TRY004 (one error for every bad value)
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a {what}: it must be finite and not negative")
    return number
