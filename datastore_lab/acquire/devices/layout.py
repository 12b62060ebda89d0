"""What a stream holds, in short: from ``{"x": "float64"}`` to a `Stat`, and from values to a `Block`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, units
from datastore_lab.acquire.documents import as_array, fit
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import ArrayInfo, Block, Stat, default_dims

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUE = "value"
"""Name of the array of a device that gives one number or array without a name."""

Fields = Mapping[str, Any]
"""Type, or (type, shape), or (type, shape, dimensions) of one sample, by the name of its array."""


def describe_stream(
    fields: Fields,
    *,
    rate: float | str | None = None,
    units: Mapping[str, str] | str | None = None,
    device: str = "",
    device_time: bool = False,
    meta: Mapping[str, Any] | None = None,
) -> Stat:
    """Describe a stream, as `Device.describe` has to.

    Parameters
    ----------
    fields : mapping of str to dtype, (dtype, shape) or (dtype, shape, dimensions)
        What one sample holds, by the names of the arrays. ``str`` is text of any length.
    rate : float or str, optional
        Samples per second, or text such as ``"1 kHz"``; None for a device without a rate of its own.
    units : mapping of str to str, or str, optional
        Units by array, or one for all of them.
    device : str, optional
        What it is, for people.
    device_time : bool, default False
        Whether each block carries the device's own clock.
    meta : mapping of str to JSON value, optional
        Further settings that belong to the data.

    Raises
    ------
    ValueError
        If the rate is not positive, or a unit belongs to no array.

    Examples
    --------
    >>> spec = describe_stream({"frame": ("uint8", (480, 640), ("y", "x"))}, rate="30 Hz", units="counts")
    >>> spec.arrays["frame"].shape, spec.arrays["frame"].dims
    ((0, 480, 640), ('time', 'y', 'x'))
    >>> spec.meta
    {'rate': 30.0, 'units': {'frame': 'counts'}}
    """
    arrays = {name: _array_info(name, field) for name, field in fields.items()}
    own: dict[str, Any] = {"rate": check_rate(rate), "units": _units(units, arrays)}
    if device:
        own["device"] = device
    if device_time:
        own["device_time"] = True
    return Stat("stream", arrays, {**own, **(meta or {})})


def check_rate(rate: Any) -> float | None:
    """Give samples per second as a number.

    Raises
    ------
    ValueError
        Unless it is positive and finite.
    """
    if rate is None:
        return None
    number = units.parse_frequency(rate) if isinstance(rate, str) else rate
    if not isinstance(number, Real) or not 0 < float(number) < math.inf:
        raise ValueError(f"a rate is a positive number of samples per second, not {rate!r}")
    return float(number)


def fields_of(sample: Any) -> dict[str, Any]:
    """Find out what a sample holds.

    Examples
    --------
    >>> fields_of({"x": 1.5, "trace": [1, 2, 3]})
    {'x': ('<f8', ()), 'trace': ('<i8', (3,))}
    """
    arrays = {name: as_array(value) for name, value in named(sample).items()}
    return {name: (dtypes.name(array.dtype), array.shape) for name, array in arrays.items()}


def named(sample: Any) -> Mapping[str, Any]:
    """Give the values of a sample by name: a number or an array alone is called ``value``."""
    return sample if isinstance(sample, Mapping) else {VALUE: sample}


def fit_row(name: str, spec: Stat, sample: Any) -> dict[str, NDArray[Any]]:
    """Hold a sample against the description, and give its arrays.

    Raises
    ------
    DeviceFailed
        If it is not what was described.
    """
    values = named(sample)
    if values.keys() != spec.arrays.keys():
        raise DeviceFailed(
            f"the device {name!r} gave {sorted(map(str, values))}, but described "
            f"{sorted(spec.arrays)}; give its fields when it is made",
            key=name,
        )
    return {array: _fit(name, array, values[array], info) for array, info in spec.arrays.items()}


def _fit(name: str, array: str, value: Any, info: ArrayInfo) -> NDArray[Any]:
    try:
        return fit(value, dtypes.parse(info.dtype), info.shape[1:])
    except (ValueError, TypeError, OverflowError) as error:
        raise DeviceFailed(
            f"the device {name!r} gave something for {array!r} that it had not described as {info.dtype} "
            f"{info.shape[1:]}: {str(error)[:200]}; give its fields when it is made",
            key=name,
        ) from error


def join_blocks(spec: Stat, blocks: Sequence[Block]) -> Block:
    """Put blocks together that follow each other."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    data = {name: np.concatenate([block.data[name] for block in blocks]) for name in spec.arrays}
    own = None
    if spec.meta.get("device_time"):
        own = np.concatenate([block.device_time for block in blocks])
    return Block(first.first, np.concatenate([block.time for block in blocks]), data, own)


def row_nbytes(spec: Stat) -> int:
    """Give the bytes of one sample; of text, what its array takes without long texts."""
    return sum(dtypes.parse(info.dtype).itemsize * math.prod(info.shape[1:]) for info in spec.arrays.values())


def _array_info(name: str, field: Any) -> ArrayInfo:
    dtype, shape, *rest = field if isinstance(field, tuple) else (field, ())
    lengths = (int(shape),) if isinstance(shape, int) else tuple(int(length) for length in shape)
    dims = tuple(rest[0]) if rest else default_dims(name, len(lengths) + 1)[1:]
    if dtype is str or dtype == "str":
        dtype = dtypes.parse(dtypes.STRING)
    elif isinstance(dtype, str) and dtype.startswith(("[", dtypes.STRING)):
        dtype = dtypes.parse(dtype)
    return ArrayInfo(dtypes.name(np.dtype(dtype)), (0, *lengths), ("time", *dims), 0, None)


def _units(given: Mapping[str, str] | str | None, arrays: Mapping[str, ArrayInfo]) -> dict[str, str]:
    if given is None:
        return {}
    if isinstance(given, str):
        return dict.fromkeys(arrays, given)
    if unknown := sorted(given.keys() - arrays.keys()):
        raise ValueError(f"there are units for {unknown}, but the arrays are {sorted(arrays)}")
    return dict(given)
