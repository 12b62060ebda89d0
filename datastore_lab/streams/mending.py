"""Checking streams, and finishing or mending what is not as it should be."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from datastore_lab import media
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, Locked
from datastore_lab.records import Problem, Repair, Stat
from datastore_lab.streams.names import LOCK, MEND
from datastore_lab.streams.places import Places, typed

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.streams.protocols import StreamFile
    from datastore_lab.streams.rows import StreamAppender


class Mending(Places):
    """Problems of streams, and what can be done about them."""

    @abstractmethod
    def _begin(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> StreamAppender:
        """Begin the files of one stream."""

    def _recover(self, path: str) -> None:
        """Finish what the killed writer of a stream left; nobody else is writing it."""

    def _recover_all(self) -> None:
        """Finish the streams whose writers were killed: their locks lie about, and nobody holds them."""
        for path in self._paths(LOCK):
            with contextlib.suppress(Locked, Foreign, Corrupt), self._claimed(path, 0.0):
                with contextlib.suppress(OSError):  # (whoever begins the stream again removes it)
                    self._discard(path)
                self._recover(path)

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for found in list(self.keys(key)):
            with self._lock:
                yield from [Problem(found, name, what) for name, what, _easy in self._problems(found)]

    def _problems(self, key: Key) -> list[tuple[str | None, str, bool]]:
        try:
            file = self._file(key)
            with typed(key):
                return [] if file is None else list(file.verify())
        except (Corrupt, Foreign, EngineError) as error:
            return [(None, error.message, False)]

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        if not self._writable:
            self._refuse("nothing can be repaired", key)
        for found in list(self.keys(key)):
            with self._lock:
                yield from self._repair(found, accept)

    def _repair(self, key: Key, accept: bool) -> list[Repair]:
        problems = self._problems(key)
        path = self._path_of(key) if self._stands(self._path_of(key)) else str(self._path)
        try:
            with self._claimed(path, 0.0):
                return self._mend(key, path, problems, accept)
        except Locked as error:  # whoever writes it will finish it
            return [Repair(key, name, f"{what}; {error.message}", False) for name, what, _easy in problems]

    def _mend(
        self, key: Key, path: str, problems: list[tuple[str | None, str, bool]], accept: bool
    ) -> list[Repair]:
        hard = [Repair(key, name, what, False) for name, what, easy in problems if not easy]
        try:
            file = self._open_anyhow(path) if hard and accept else self._look(path)
            loose = file.loose_end()
            if (hard and not accept) or not (problems or loose):
                return hard
            self._rewrite(file, path, trusting=bool(hard))
        except LabError as error:
            return hard or [Repair(key, None, error.message, False)]
        done = [(name, f"{what}; taken as it is, with new checksums" if not easy else f"{what}; written anew")
                for name, what, easy in problems]  # fmt: skip
        done += [(None, f"{loose}; finished")] if loose and not problems else []
        return [Repair(key, name, what, True) for name, what in done]

    def _open_anyhow(self, path: str) -> StreamFile:
        """Open a file that is not as it was written, as far as it can be read at all."""
        return self._look(path)

    def _rewrite(self, file: StreamFile, path: str, *, trusting: bool) -> None:
        """Copy a stream into new files, and put them into the place of the old ones when they are whole."""
        file.trusting = trusting
        try:
            found = file.stat()
            infos = {name: info._replace(shape=(0, *info.shape[1:])) for name, info in found.arrays.items()}
            self._discard(path)
            copy = self._begin(path + MEND, file.key, found._replace(arrays=infos), lambda: None)
            rows = next((info.shape[0] for info in found.arrays.values()), 0)
            each = sum(info.nbytes for info in found.arrays.values()) // max(rows, 1)
            step = max(1, 16_000_000 // max(each, 1))
            for start in range(0, rows, step):
                copy.extend({name: file.read(name, (slice(start, start + step),)) for name in infos})
            copy.close({})
        finally:
            file.trusting = False
        self._replace(path + MEND, path)
        self._files.pop(path, None)

    def _discard(self, path: str) -> None:
        """Remove files that were to take the place of those at a path, or to be there, and were not whole."""
        for tail in reversed(self.tails):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + MEND + tail)  # noqa: PTH108

    def _replace(self, source: str, target: str) -> None:
        os.replace(source, target)  # noqa: PTH105
        media.sync_folder(os.path.dirname(target))  # noqa: PTH120
