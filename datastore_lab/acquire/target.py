"""One place that a run writes to: its writer, a cursor per stream, and the thread that drains them."""

from __future__ import annotations

import glob
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab.acquire import documents
from datastore_lab.acquire.events import DocumentSink
from datastore_lab.acquire.writers import StoreWriter
from datastore_lab.errors import Corrupt, EngineError, StreamError
from datastore_lab.keys import show
from datastore_lab.records import Block, Stat, Writer
from datastore_lab.registry import SUFFIXES, WRITERS
from datastore_lab.store import Store, open_store

if TYPE_CHECKING:
    from datastore_lab.acquire.cursor import Cursor
    from datastore_lab.acquire.stream import Stream

_PIECE_BYTES = 8_000_000
_POLL = 0.02
"""Seconds between two looks at the rings: writing in batches costs less than being woken per block."""


class Mark(NamedTuple):
    """Something that happened at a moment, in ns since 1970, UTC: a ``mark``, ``pause``, ``alarm`` ..."""

    time: int
    event: str
    text: str


class Target:
    """A writer with what it needs to follow a run.

    Parameters
    ----------
    place : path, Store, Writer or callable
        A path is opened when the run starts; its suffix chooses the writer. A callable gets documents.
    flush_interval : float
        Seconds.

    Attributes
    ----------
    options : dict
        What the writer of a path is told, such as its compression.
    """

    def __init__(self, place: Any, flush_interval: float) -> None:
        self.place = place
        self.options: dict[str, Any] = {}
        self._kind = _writer_name(place)
        self.label = str(place) if self._kind else _store_label(place) or repr(place)
        self._interval = flush_interval
        self._writer: Writer | None = None
        self._cursors: dict[str, Cursor] = {}
        self._pieces: dict[str, int] = {}
        self._nbytes: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._marked = 0
        self._wake = threading.Event()
        self._ended = threading.Event()
        self.failed = False
        self._start: Mapping[str, Any] = {}

    @property
    def is_path(self) -> bool:
        """Whether it is a path, whose writer is chosen and opened here."""
        return self._kind is not None

    def factory(self) -> Callable[..., Writer]:
        """Give what makes the writer of a path."""
        factory: Callable[..., Writer] = WRITERS.load(str(self._kind))
        return factory

    def open(self) -> None:
        """Open the writer; nothing is written yet."""
        self.failed = False  # a start that failed may be tried again
        if self._kind is not None:
            self._writer = self.factory()(self.place, **self.options)
        elif isinstance(self.place, Store):
            self._writer = StoreWriter(self.place)
        else:
            self._writer = self.place if isinstance(self.place, Writer) else DocumentSink(self.place)

    def exists(self) -> bool:
        """Say whether there may be something already: such targets are checked before others are made."""
        if self._kind is None:
            return True
        path = Path(self.place)
        try:
            return path.exists() or any(path.parent.glob(f"{glob.escape(path.stem)}.*{path.suffix}"))
        except (OSError, ValueError):  # a path that can't be: to open it says why
            return True

    def check(self, names: list[str]) -> None:
        """Refuse names that are taken."""
        if isinstance(self._writer, StoreWriter):
            self._writer.check(names)

    def begin(self, start: Mapping[str, Any], streams: Sequence[Stream], overflow: Mapping[str, Any]) -> None:
        """Announce the run and its streams, and take a cursor on each ring."""
        self._announce(start, {stream.name: stream.spec for stream in streams})
        for stream in streams:
            self._cursors[stream.name] = stream.ring.cursor(
                **overflow, on_full=self._wake.set, name=self.label
            )
            self._pieces[stream.name] = max(1, _PIECE_BYTES // stream.ring.sample_nbytes)
            self._nbytes[stream.name] = stream.ring.sample_nbytes
            self._written[stream.name] = 0

    def put(
        self, start: Mapping[str, Any], specs: Mapping[str, Stat], blocks: Sequence[tuple[str, Block]]
    ) -> None:
        """Write a run that is over already: announce it, and write blocks of its streams."""
        self._announce(start, specs)
        for name, block in blocks:
            self._opened().write(name, block)
            self._marked += len(block.time) if name == documents.MARKS else 0

    def _announce(self, start: Mapping[str, Any], specs: Mapping[str, Stat]) -> None:
        self._start = start
        writer = self._opened()
        writer.consume_document("start", start)
        for name, spec in {**specs, documents.MARKS: documents.MARKS_SPEC}.items():
            writer.consume_document("descriptor", documents.descriptor_document(name, spec, start))

    def run(self, marks: Sequence[Mark], report: Callable[[StreamError], None]) -> None:
        """Write what comes until `end` was called and everything is written.

        What was kept aside on disk and can't be read, or found no room there, is told to `report`; the rest
        is written all the same.

        Raises
        ------
        StreamError
            Whatever went wrong, with the reason as its cause.
        """
        try:
            self._loop(marks, report)
        except BaseException as error:
            failure = StreamError(f"writing to {self.label} failed: {error}", key=self.label)
            self.abandon(failure)
            raise failure from error

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended.set()
        self._wake.set()

    def finish(
        self, error: BaseException | None, ledgers: Mapping[str, Mapping[str, Any]], reason: str = ""
    ) -> None:
        """Write how the run ended and what is missing, and close."""
        mine = {name: {**ledger, **self.ledger(name)} for name, ledger in ledgers.items()}
        try:
            self.stop(error, mine, reason)
        except BaseException as failed:
            failure = StreamError(f"closing {self.label} failed: {failed}", key=self.label)
            self.abandon(failure)
            raise failure from failed
        finally:
            for cursor in self._cursors.values():
                cursor.close()

    def stop(
        self, error: BaseException | None, ledgers: Mapping[str, Mapping[str, Any]], reason: str = ""
    ) -> None:
        """Write the stop document with these ledgers, and close."""
        every = {**ledgers, documents.MARKS: {"written": self._marked}}
        self._opened().consume_document("stop", documents.stop_document(self._start, error, every, reason))
        self._opened().close()

    def abandon(self, failure: BaseException) -> None:
        """Close a writer after a failure; what fails now is added to the error that ended it."""
        self.failed = True
        for cursor in self._cursors.values():
            cursor.close()
        try:
            self._opened().close()
        except Exception as error:
            failure.add_note(f"closing {self.label} failed too: {error}")

    def _loop(self, marks: Sequence[Mark], report: Callable[[StreamError], None]) -> None:
        flush_at = time.monotonic() + self._interval
        while True:
            ended = self._ended.is_set()
            wrote = self._drain(marks, report)
            if time.monotonic() >= flush_at:
                self._opened().flush()
                flush_at = time.monotonic() + self._interval
            if not wrote:
                if ended:
                    self._opened().flush()
                    return
                self._wake.wait(_POLL)
                self._wake.clear()

    def _drain(self, marks: Sequence[Mark], report: Callable[[StreamError], None]) -> bool:
        """Write one block of each stream, and the new marks; says whether there was anything."""
        writer, wrote = self._opened(), False
        for name, cursor in self._cursors.items():
            try:
                block = cursor.read(self._pieces[name])
            except (EngineError, Corrupt) as error:
                report(StreamError(f"of the stream {name!r} for {self.label}: {error}", key=name))
                wrote = True
                continue
            if block is not None:
                writer.write(name, block)
                self._written[name] += len(block.time)
                wrote = True
        new = list(marks[self._marked :])
        if new:
            writer.write(documents.MARKS, marks_block(self._marked, new))
            self._marked += len(new)
        return wrote or bool(new)

    def _opened(self) -> Writer:
        if self._writer is None:
            raise StreamError(f"{self.label} is not open: the run has not started", key=self.label)
        return self._writer

    def ledger(self, name: str) -> dict[str, Any]:
        """Say what this target has of a stream, and what it lost of it."""
        cursor = self._cursors[name]
        counts = cursor.counts
        return {"written": self._written[name], "lost": counts.lost, "gaps": cursor.gaps}

    def stats(self, name: str) -> dict[str, int]:
        """Give the figures of a stream: samples behind, lost and written, and bytes written."""
        if name not in self._cursors:
            return {"lag": 0, "lost": 0, "written": 0, "bytes": 0}
        counts = self._cursors[name].counts
        return {
            "lag": counts.pending,
            "lost": counts.lost,
            "written": self._written[name],
            "bytes": self._written[name] * self._nbytes[name],
        }

    def store(self) -> Store | None:
        """Open what was written for reading; None for a writer that is not a file or a store."""
        if isinstance(self.place, Store):
            return self.place
        return open_store(self.place, "r") if self._kind is not None else None


def _writer_name(place: Any) -> str | None:
    """Name the writer of a path; None for a store or a writer.

    Raises
    ------
    EngineError
        If no writer knows the suffix.
    TypeError
        For anything else.
    """
    if isinstance(place, (Store, Writer)) or callable(place):
        return None
    if not isinstance(place, (str, os.PathLike)):
        raise TypeError(
            "a run writes to a path, a Store or a writer, or calls something with documents, "
            f"but can't do either with {type(place).__name__}"
        )
    suffix = Path(place).suffix.lower()
    name = SUFFIXES.get(suffix) or (suffix[1:] if suffix and WRITERS.find(suffix[1:]) else None)
    if name is None:
        raise EngineError(
            f"no writer is known for {str(place)!r}; use one of the suffixes {', '.join(SUFFIXES)}",
            key=str(place),
        )
    return name


def _store_label(place: Any) -> str | None:
    """Give the address of a store with its group: a run may write into several groups of one store."""
    if not isinstance(place, Store):
        return None
    return f"{place.url} at {show(place.prefix)!r}" if place.prefix else place.url


def marks_block(first: int, marks: Sequence[Mark]) -> Block:
    """Make a block of the stream of marks."""
    text = np.dtypes.StringDType()
    data = {
        "event": np.array([mark.event for mark in marks], dtype=text),
        "text": np.array([mark.text for mark in marks], dtype=text),
    }
    return Block(first, np.array([mark.time for mark in marks], dtype=np.int64), data)
