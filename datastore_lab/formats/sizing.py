"""How much memory and disk a stream takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from datastore_lab.records import Stat
from datastore_lab.units import parse_duration, parse_frequency, parse_rate, parse_size

if TYPE_CHECKING:
    import numpy as np


def buffer_size(rate: float | str | None, duration: float | str, sample: Any = 1) -> int:
    """Compute the size of a buffer that holds a stream for a while.

    Parameters
    ----------
    rate : number, str or None
        Samples per second, as a number or as text such as ``"30 fps"``; or bytes per second as text such
        as ``"400 MB/s"``, taken as it stands; or None for the rate that the device `sample` declares.
    duration : number or str
        Seconds, or text such as ``"5 s"``.
    sample : int, dtype, (dtype, shape), array or device, default 1
        What one sample is: its bytes, its type, type and shape, one sample itself, or the device that
        gives it. Time stamps and sequence numbers are not counted.

    Returns
    -------
    int
        Bytes, rounded up.

    Raises
    ------
    ValueError
        If a unit is wrong, or the sample is given beside a rate in bytes.

    Examples
    --------
    >>> buffer_size("400 MB/s", "5 s")
    2000000000
    >>> buffer_size(10_000, "60 s", ("float64", (16,)))
    76800000
    >>> buffer_size("30 fps", 10, ("uint8", (480, 640)))
    92160000
    """
    return math.ceil(data_rate(rate, sample) * parse_duration(duration))


def disk_space(
    rate: float | str | None, duration: float | str, sample: Any = 1, *, text: bool = False
) -> int:
    """Compute the space that a recording takes uncompressed.

    Parameters
    ----------
    rate, duration, sample
        As for `buffer_size`.
    text : bool, default False
        Estimate the size as decimal text, as in CSV: the mean length of values that use the whole range
        of an integer type, or of normally distributed floats in full precision, plus a separator.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    A camera of 640 x 480 pixels of 8 bits at 30 frames per second, for an hour, as it is and as text:

    >>> from datastore_lab.units import format_size
    >>> format_size(disk_space("30 fps", "1 h", ("uint8", (480, 640))))
    '33.2 GB'
    >>> format_size(disk_space("30 fps", "1 h", ("uint8", (480, 640)), text=True))
    '118 GB'
    """
    raw = buffer_size(rate, duration, sample)
    return math.ceil(raw * _text_ratio(sample)) if text else raw


def seconds_to_overflow(
    size: int | str, rate: float | str | None, written: float | str, sample: Any = 1
) -> float:
    """Compute when a buffer is full.

    Parameters
    ----------
    size : int or str
        Of the buffer, in bytes or as text such as ``"500 MB"``.
    rate, sample
        What comes, as for `buffer_size`.
    written : number or str
        What the writer takes: bytes per second, as ``Measurement.write_rate`` of `measure` says, or text
        such as ``"300 MB/s"``.

    Returns
    -------
    float
        Seconds; infinite if the writer keeps up.

    Examples
    --------
    >>> seconds_to_overflow("2 GB", "400 MB/s", "300 MB/s")
    20.0
    >>> seconds_to_overflow("2 GB", "400 MB/s", 500e6)
    inf
    """
    comes, goes = data_rate(rate, sample), parse_rate(written)
    return math.inf if goes >= comes else parse_size(size) / (comes - goes)


def data_rate(rate: float | str | None, sample: Any = 1) -> float:
    """Compute the bytes per second of a stream.

    Parameters
    ----------
    rate, sample
        As for `buffer_size`.

    Examples
    --------
    >>> data_rate(30, ("uint8", (480, 640)))
    9216000.0
    """
    if rate is None:
        rate = _declared_rate(sample)
    if isinstance(rate, str) and _is_data_rate(rate):
        if not (isinstance(sample, int) and sample == 1):
            raise ValueError(
                f"{rate!r} counts bytes already; leave the sample out, or give samples per second"
            )
        return parse_rate(rate)
    return parse_frequency(rate) * sample_size(sample)


def sample_size(sample: Any) -> int:
    """Give the bytes of one sample; see `buffer_size` for what a sample may be.

    Examples
    --------
    >>> sample_size(("<i2", (8,))), sample_size("float32"), sample_size(12)
    (16, 4, 12)
    """
    if isinstance(sample, int) and not isinstance(sample, bool):
        if sample < 1:
            raise ValueError(f"a sample of {sample} bytes is none")
        return sample
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in _parts(sample))


def _parts(sample: Any) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    """Give the type and the shape of each array in one sample."""
    from datastore_lab import dtypes

    stat = described(sample)
    if stat is not None:
        return [(_fixed(dtypes.parse(info.dtype)), info.shape[1:]) for info in stat.arrays.values()]
    if not isinstance(sample, type) and hasattr(sample, "dtype") and hasattr(sample, "shape"):
        return [(_fixed(sample.dtype), tuple(sample.shape))]
    return [_typed(sample)]


def _typed(sample: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    import numpy as np

    dtype, shape = sample if isinstance(sample, tuple) and len(sample) == 2 else (sample, ())
    if dtype is None or isinstance(dtype, (bool, float)):
        raise ValueError(
            f"{sample!r} is not a sample: give bytes, a dtype, (dtype, shape), an array or a device"
        )
    try:
        lengths = tuple(int(length) for length in (shape if isinstance(shape, (tuple, list)) else (shape,)))
        if min(lengths, default=0) < 0:
            raise ValueError(f"{sample!r} is not a sample: no axis has a negative length")
        return _fixed(np.dtype(dtype)), lengths
    except TypeError as error:
        raise ValueError(
            f"{sample!r} is not a sample: give bytes, a dtype, (dtype, shape), an array or a device ({error})"
        ) from None


def _fixed(dtype: Any) -> np.dtype[Any]:
    """Refuse types whose values have no fixed size."""
    import numpy as np

    found: np.dtype[Any] = np.dtype(dtype)
    if found.hasobject or found.itemsize == 0 or found.kind == "T":
        raise ValueError(f"values of the type {found} have no fixed size; give the bytes of a sample instead")
    return found


def described(sample: Any) -> Stat | None:
    """Give the description of a device, or a description as it is; None for anything else."""
    if isinstance(sample, Stat):
        return sample
    describe = getattr(sample, "describe", None)
    stat = describe() if callable(describe) and hasattr(sample, "read") else None
    return stat if isinstance(stat, Stat) else None


def _declared_rate(sample: Any) -> float:
    stat = described(sample)
    rate = stat.meta.get("rate") if stat is not None else None
    if rate is None:
        raise ValueError(f"{sample!r} declares no rate; give the samples per second")
    return parse_frequency(rate)


def _is_data_rate(rate: str) -> bool:
    try:
        parse_frequency(rate)
    except ValueError:
        try:
            parse_rate(rate)
        except ValueError:
            raise ValueError(
                f"{rate!r} is not a rate: write samples per second ('30 fps', '10 kHz') or bytes per second "
                "('400 MB/s')"
            ) from None
        return True
    return False


def _text_ratio(sample: Any) -> float:
    """Divide the length of a sample as text by its bytes."""
    if isinstance(sample, int):
        raise ValueError(  # noqa: TRY004 (every answer that is not understood is a ValueError)
            "the size as text depends on the type of the values; give (dtype, shape) as the sample"
        )
    parts = _parts(sample)
    text = sum(_text_length(dtype) * math.prod(shape) for dtype, shape in parts)
    return text / sample_size(sample)


def _text_length(dtype: np.dtype[Any]) -> float:
    import numpy as np

    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if dtype.itemsize <= 2:
            return _mean_length(range(info.min, info.max + 1))
        values = np.random.default_rng(0).integers(
            info.min, info.max, 10_000, dtype=dtype.newbyteorder("="), endpoint=True
        )
    elif dtype.kind == "f":
        values = np.random.default_rng(0).standard_normal(10_000).astype(dtype)
    else:
        raise ValueError(
            f"the length of {dtype} as text is not known; it is estimated for integers and floats"
        )
    return _mean_length(values)


def _mean_length(values: Any) -> float:
    return 1 + sum(len(str(value)) for value in values) / len(values)
