"""The description of a stream as bytes, for files that carry it."""

from __future__ import annotations

from datastore_lab import media
from datastore_lab.records import ArrayInfo, Stat


def spec_to_json(spec: Stat) -> bytes:
    """Write down what a stream holds.

    Examples
    --------
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0, 3), ("time", "c"), 0, None)}, {"rate": None})
    >>> spec_from_json(spec_to_json(spec)) == spec
    True
    """
    arrays = {name: [info.dtype, list(info.shape), list(info.dims)] for name, info in spec.arrays.items()}
    return media.to_json({"arrays": arrays, "meta": dict(spec.meta)}).encode()


def spec_from_json(text: bytes) -> Stat:
    """Read what `spec_to_json` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else.
    """
    found = media.from_json(text)
    arrays = {
        name: ArrayInfo(dtype, tuple(shape), tuple(dims), 0, None)
        for name, (dtype, shape, dims) in found["arrays"].items()
    }
    return Stat("stream", arrays, found["meta"])
