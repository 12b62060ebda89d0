"""What engines share that keep each stream as a table of text with a sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datastore_lab.streams.engine import StreamsEngine
from datastore_lab.streams.ipc.read import Unfinished
from datastore_lab.streams.names import MEND, NotOurs
from datastore_lab.streams.text import sidecar
from datastore_lab.streams.text.read import TextFile
from datastore_lab.streams.text.sidecar import SIDECAR, glimpse
from datastore_lab.streams.text.write import TextAppender

if TYPE_CHECKING:
    from collections.abc import Callable

    from datastore_lab.errors import LabError
    from datastore_lab.keys import Key
    from datastore_lab.records import Stat
    from datastore_lab.streams.protocols import StreamFile


class TextEngine(StreamsEngine):
    """Streams as tables of text: two files that are begun, put into their place and mended together."""

    tails: ClassVar[tuple[str, ...]] = ("", SIDECAR)

    def _glimpse(self, key: Key, path: str) -> bool:
        return glimpse(path, key)

    def _begin(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> TextAppender:
        return TextAppender(path, key, spec, release, durable=self._durable)

    def _discard(self, path: str) -> None:
        sidecar.settle(path, durable=self._durable)  # what was put into the place already counts
        sidecar.discard(path + MEND)

    def _replace(self, source: str, target: str) -> None:
        sidecar.publish(source, target)
        self._files.pop(target, None)

    def _open_anyhow(self, path: str) -> StreamFile:
        return TextFile(path, trusting=True)

    def _rewrite(self, file: StreamFile, path: str, *, trusting: bool) -> None:
        """Write the sidecar only: the table is as it is, and one file is replaced as a whole."""
        if isinstance(file, TextFile):
            file.reseal(durable=self._durable)
            self._files.pop(path, None)

    def _nothing(self) -> tuple[type[LabError], ...]:
        return (NotOurs, Unfinished)
