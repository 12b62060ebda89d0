"""The state and the numbers of a run, as plain JSON for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENDED = frozenset({"stopped", "failed"})
"""States of a run after which nothing changes any more."""


def summary(run: Any) -> dict[str, Any]:
    """Give what a panel shows of a run.

    Parameters
    ----------
    run : Run

    Returns
    -------
    dict
        ``state``, ``elapsed`` in s, ``error`` as text or None, and ``streams``: one dict each with name, rate
        (samples per second), produced, fill (0…1), lost and lag (samples), bytes written.
    """
    error = run.error
    return {
        "state": str(run.state),
        "elapsed": float(run.elapsed or 0.0),
        "error": None if error is None else _say(error),
        "streams": [_stream(name, numbers) for name, numbers in run.stats().items()],
    }


def _stream(name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    writers = numbers.get("writers", {}).values()
    missed = sum(int(writer["lost"]) for writer in writers)
    return {
        "name": name,
        "rate": float(numbers["rate"] or 0.0),
        "produced": int(numbers["produced"]),
        "fill": float(numbers["fill"]),
        "lost": int(numbers["device_lost"]) + missed,
        "lag": max((int(writer["lag"]) for writer in writers), default=0),
        "bytes": sum(int(writer["bytes"]) for writer in writers),
    }


def _say(error: Any) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
