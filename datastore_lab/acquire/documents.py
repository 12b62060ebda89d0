"""The documents that describe a run: start, descriptor and stop, after bluesky's event model.

Field names follow the event model (https://blueskyproject.io/event-model); what the model does not know
(rates, ledgers of lost samples) stands beside them under names of its own.
"""

from __future__ import annotations

import json
import math
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.acquire import origin
from datastore_lab.errors import StreamError
from datastore_lab.records import ArrayInfo, Stat, default_dims

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKS = "marks"
"""Name of the stream of marks and pauses that every run has."""

_EVENTS = ("mark", "pause", "resume", "alarm", "failure", "recovery")

MARKS_SPEC = Stat(
    "stream",
    {name: ArrayInfo(dtypes.STRING, (0,), ("time",), 0, None) for name in ("event", "text")},
    {"rate": None, "units": {}, "device": f"marks of the run: event is one of {', '.join(_EVENTS)}"},
)

_SCALARS = {"number": "<f8", "integer": "<i8", "boolean": "|b1", "string": dtypes.STRING}


def start_document(
    metadata: Mapping[str, Any], devices: Sequence[str], parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe a run at its start: who, where, with what, and from which state of the source code."""
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "metadata": plain(metadata, "metadata"),
        "devices": list(devices),
        "parameters": plain(parameters or {}, "parameters"),
        "host": platform.node(),
        "platform": platform.platform(),
        "versions": origin.versions(),
        "program": origin.program(),
        "git": origin.git_state(),
    }


def descriptor_document(name: str, spec: Stat, start: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a stream of blocks: one data key per array."""
    units = spec.meta.get("units", {})
    keys = {array: _data_key(name, info, units.get(array)) for array, info in spec.arrays.items()}
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "run_start": start["uid"],
        "name": name,
        "data_keys": keys,
        "meta": {key: value for key, value in spec.meta.items() if key != "units"},
    }


def stop_document(
    start: Mapping[str, Any],
    error: BaseException | None,
    ledgers: Mapping[str, Mapping[str, Any]],
    reason: str = "",
) -> dict[str, Any]:
    """Describe how and why a run ended, and per stream exactly what its file does not hold."""
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "run_start": start["uid"],
        "exit_status": "success" if error is None else "fail",
        "reason": reason if error is None else str(error),
        "num_events": {name: ledger["written"] for name, ledger in ledgers.items()},
        "ledger": ledgers,
    }


def spec_of(descriptor: Mapping[str, Any], sample: Mapping[str, Any] | None = None) -> Stat | None:
    """Give the layout of a stream from its descriptor.

    Parameters
    ----------
    descriptor : mapping
        A descriptor document.
    sample : mapping of str to value, optional
        The data of its first event, for arrays whose type or shape the descriptor leaves open.

    Returns
    -------
    Stat or None
        None if it takes a sample to say, and there is none.
    """
    arrays, units = {}, {}
    for name, key in descriptor["data_keys"].items():
        info = _array_info(name, key, None if sample is None else sample[name])
        if info is None:
            return None
        arrays[name] = info
        if key.get("units"):
            units[name] = str(key["units"])
    extra = descriptor.get("meta", {})
    configuration = descriptor.get("configuration")
    meta = {**extra, "rate": extra.get("rate"), "units": units}
    if configuration:
        meta["configuration"] = configuration
    return Stat("stream", arrays, plain(meta, "descriptor"))


def _data_key(device: str, info: ArrayInfo, units: str | None) -> dict[str, Any]:
    names = {dtype: name for name, dtype in _SCALARS.items()}
    kind = names.get(info.dtype, "array") if len(info.shape) == 1 else "array"
    key = {
        "source": f"device:{device}",
        "dtype": kind,
        "shape": list(info.shape[1:]),
        "dims": list(info.dims[1:]),
    }
    if info.dtype != dtypes.STRING:  # the event model knows no text of variable length but by "string"
        key["dtype_numpy"] = json.loads(info.dtype) if info.dtype.startswith("[") else info.dtype
    return {**key, "units": units} if units else key


def _array_info(name: str, key: Mapping[str, Any], value: Any) -> ArrayInfo | None:
    if "external" in key:  # the event carries the name of the external datum, not the datum
        return ArrayInfo(dtypes.STRING, (0,), ("time",), 0, None)
    shape, dtype = tuple(key.get("shape") or ()), key.get("dtype_numpy") or _SCALARS.get(key["dtype"])
    if key["dtype"] != "array":
        shape = ()
    if dtype is None or any(not isinstance(length, int) or length < 0 for length in shape):
        if value is None:
            return None
        sample = as_array(value)
        shape, dtype = sample.shape, dtypes.name(sample.dtype)
    dims = tuple(key.get("dims") or ())
    if len(dims) != len(shape):
        dims = default_dims(name, len(shape) + 1)[1:]
    return ArrayInfo(_canonical(dtype), (0, *shape), ("time", *dims), 0, None)


def _canonical(dtype: Any) -> str:
    if isinstance(dtype, str):
        return dtypes.name(dtypes.parse(dtype))
    return dtypes.name(np.dtype([tuple(field) for field in dtype]))  # event model: a list of fields


def as_array(value: Any) -> Any:
    """Make an array of what an event holds; text becomes text of variable length."""
    array = np.asarray(value)
    return array.astype(np.dtypes.StringDType()) if array.dtype.kind == "U" else array


def fit(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Make what an event holds the type that was declared, as long as that changes no value.

    Raises
    ------
    ValueError, TypeError
        If it does not fit.

    Examples
    --------
    >>> fit(3, np.dtype("f8"), ()), fit([1, 2], np.dtype("u2"), (2,))
    (array(3.), array([1, 2], dtype=uint16))
    >>> fit(1.5, np.dtype("i8"), ())
    Traceback (most recent call last):
    ValueError: 1.5 is not int64
    """
    given: NDArray[Any] = as_array(value)
    if given.shape != shape:
        raise ValueError(f"its shape is {given.shape}, not {shape}")
    if given.dtype == dtype:
        return given
    if given.dtype.kind == "c" != dtype.kind:
        raise ValueError(f"{value!r} is complex, not {dtype}")
    with np.errstate(all="ignore"):  # what does not fit is found by comparing
        cast: NDArray[Any] = given.astype(dtype)
        if given.dtype.kind + dtype.kind in {"ff", "cc"}:  # fewer digits are what the declaration asks for
            same = np.isfinite(cast) == np.isfinite(given)
        else:  # both ways: to compare an integer with a float rounds the integer first
            same = (cast == given) & (cast.astype(given.dtype) == given)
    if not np.all(same):
        raise ValueError(f"{value!r} is not {dtype}")
    return cast


def plain(value: Any, path: str) -> Any:
    """Turn what users put into metadata into JSON: numpy scalars and arrays, paths, dates.

    Raises
    ------
    NotStorable
        Naming the place of what JSON can't hold.

    Examples
    --------
    >>> plain({"gain": np.float32(0.5), "when": date(2026, 1, 2)}, "metadata")
    {'gain': 0.5, 'when': '2026-01-02'}
    """
    simple = _plain(value)
    media.check_json(simple, path)
    return simple


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biuf":
        return value.tolist()
    if isinstance(value, (np.datetime64, PurePath)):
        return str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value


def nanoseconds(seconds: float) -> int:
    """Turn a document's time (s since 1970) into int64 ns, as exactly as the float is.

    Examples
    --------
    >>> nanoseconds(1.5)
    1500000000
    """
    fraction, whole = math.modf(seconds)
    return int(whole) * 1_000_000_000 + round(fraction * 1e9)


def unknown_stream(name: str, known: Sequence[str]) -> StreamError:
    """Make the error for blocks or events of a stream that nobody described."""
    return StreamError(
        f"the stream {name!r} was not described; described are {', '.join(map(repr, known)) or 'none'}"
    )
