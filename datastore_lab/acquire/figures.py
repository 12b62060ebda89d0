"""The figures of a run: what came, what waits, and what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire import ranges

if TYPE_CHECKING:
    from datastore_lab.acquire.stream import Stream
    from datastore_lab.acquire.target import Target


def stream_figures(stream: Stream, targets: Sequence[Target]) -> dict[str, Any]:
    """Give the figures of one stream, as `Run.stats` describes them."""
    writers = {target.label: target.stats(stream.name) for target in targets}
    lag = max((writer["lag"] for writer in writers.values()), default=0)
    ledger = stream.ledger()
    return {
        "rate": stream.rate(),
        "produced": ledger["produced"],
        "fill": min(1.0, lag / stream.ring.samples),
        "device_lost": ledger["device_lost"],
        "skipped": ranges.total(ledger["skipped"]),
        "outages": len(ledger["outages"]),
        "clock": ledger["clock"],
        "writers": writers,
    }


def status_line(
    state: str, seconds: float, stats: Mapping[str, Mapping[str, Any]], causes: Iterable[object]
) -> str:
    """Say in one line how a run goes."""
    lost = sum(each["device_lost"] for each in stats.values())
    lost += sum(writer["lost"] for each in stats.values() for writer in each["writers"].values())
    rates = ", ".join(f"{name} {each['rate']:.4g}/s" for name, each in stats.items())
    why = "; ".join(str(cause) for cause in causes)
    line = f"{state} for {units.format_duration(round(seconds, 1))}, {rates}, {lost} lost"
    return f"{line}: {why}" if why else line
