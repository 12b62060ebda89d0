"""What a run was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from datastore_lab.acquire.alarms import Alarm
    from datastore_lab.acquire.run import Run
    from datastore_lab.acquire.stream import Stream

Until: TypeAlias = "Callable[[Run], object] | Mapping[str, int]"
"""When a run has what it was to have: what a function says, or samples by the names of streams."""


class Plan(NamedTuple):
    """What `acquire` was asked for, as it describes it; `parameters` is what files say of it."""

    overflow: Mapping[str, Any]
    metadata: Mapping[str, Any]
    duration: float | None
    until: Until | None
    alarms: Sequence[Alarm]
    stop_on_failure: bool
    parameters: Mapping[str, Any]

    def reached(self, run: Run, streams: Mapping[str, Stream]) -> bool:
        """Say whether a run has what it was to have."""
        if self.until is None:
            return False
        if callable(self.until):
            return bool(self.until(run))
        return all(streams[name].ended.is_set() for name in self.until)
