"""What the engines of streams ask of a file, and of what is being written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records import Selection, Stat


class StreamFile(Protocol):
    """One stream as it lies on disk."""

    path: str
    key: Key
    trusting: bool
    """Read without comparing sums: what was changed on purpose is taken as it is."""

    @property
    def layout(self) -> int | None:
        """Version of the layout in which it was written; None in a file of another program."""
        ...

    def refresh(self) -> bool:
        """Take in what was appended since; False if it is another file now."""
        ...

    def stat(self) -> Stat:
        """Describe the record."""
        ...

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read a part of an array."""
        ...

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield array, what is wrong, and whether it can be mended without guessing."""
        ...

    def loose_end(self) -> str | None:
        """Say what its writer had no time to finish."""
        ...


class Ending(Protocol):
    """Something that is being written, and that ends with the engine."""

    def close(self, meta: Mapping[str, Any]) -> None:
        """Finish it."""
        ...

    def abandon(self) -> None:
        """End it with what was flushed, and drop the rest."""
        ...
