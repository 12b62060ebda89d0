"""A run: from devices through rings into files, with an end that is always known."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire import documents
from datastore_lab.acquire.target import Mark, Target
from datastore_lab.errors import DeviceFailed, NotFound, RunAborted, StreamError

if TYPE_CHECKING:
    from datastore_lab.acquire.stream import Stream
    from datastore_lab.records import Block, Device
    from datastore_lab.store import Store

PATIENCE = 10.0
"""Seconds that a device waits for a writer that stands still (overflow ``block``), and that the end of a
run waits for a driver that does not return from its ``read``."""


class Run:
    """What `acquire` returns: a recording that goes on in the background.

    As a context manager it stops at the end of the block. An error in any of its threads ends it in the
    state ``failed``, with everything before it written; `wait` and `stop` raise it.

    Attributes
    ----------
    state : {"ready", "running", "paused", "stopped", "failed"}
    error : Exception or None
        Why it failed.
    metadata : dict
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        targets: Sequence[Target],
        overflow: Mapping[str, Any],
        metadata: Mapping[str, Any],
        duration: float | None,
    ) -> None:
        self.state = "ready"
        self.error: BaseException | None = None
        self.metadata = dict(metadata)
        self._streams = {stream.name: stream for stream in streams}
        self._targets = list(targets)
        self._overflow = overflow
        self._duration = duration
        self._marks: list[Mark] = []
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._begun, self._ending, self._over = threading.Event(), threading.Event(), threading.Event()
        self._paused = threading.Event()
        self._recorded, self._since = 0.0, 0.0  # seconds before the last pause; when it last went on

    # -- to steer --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or go on after a pause.

        Raises
        ------
        StreamError
            If it is over: a run is recorded once.
        """
        with self._lock:
            if self.state == "paused":
                self.resume()
            elif self.state == "ready":
                self._begin()
            elif self.state != "running":
                raise StreamError(f"this run is {self.state}; call acquire() again for a new one")

    def pause(self) -> None:
        """Leave out what comes from now on; the gap is recorded as a pause, not as a loss."""
        with self._lock:
            if self.state == "running":
                self._paused.set()
                self._recorded += time.monotonic() - self._since
                self.state = "paused"
                self._note("pause", "")

    def resume(self) -> None:
        """Go on after a pause."""
        with self._lock:
            if self.state == "paused":
                self._note("resume", "")
                self._since = time.monotonic()
                self.state = "running"
                self._paused.clear()

    def mark(self, text: str) -> None:
        """Note something at this moment, in the stream ``marks`` of every file.

        Raises
        ------
        StreamError
            If the run is not going on.
        """
        with self._lock:
            if self.state not in {"running", "paused"} or self._ending.is_set():
                state = "ending" if self.state in {"running", "paused"} else self.state
                raise StreamError(f"this run is {state}, so there is nothing to mark")
            self._note("mark", str(text))

    def stop(self) -> None:
        """End the run, and return when everything is written.

        Called by one of its own devices or writers it returns at once: the run ends when they have returned.

        Raises
        ------
        DeviceFailed, StreamError
            If the run failed.
        """
        self._halt()
        if not self._inside():
            self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run is over; says whether it is.

        An interrupt (Ctrl-C) while waiting ends the run with everything written, and goes on its way.

        Raises
        ------
        DeviceFailed, StreamError
            If the run failed, or if one of its own devices or writers asks: it would wait for itself.
        """
        if self._inside():
            raise StreamError("a device or a writer can't wait for the run that it belongs to")
        try:
            over = self._over.wait(timeout) if self.state != "ready" else False
        except KeyboardInterrupt:
            self._halt()
            raise
        if over and self.error is not None:
            raise self.error
        return over

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        self._halt()
        if kind is None:
            self.wait()

    # -- to look at ------------------------------------------------------------------------------------

    @property
    def devices(self) -> dict[str, Device]:
        """The devices, by the names of their streams."""
        return {name: stream.device for name, stream in self._streams.items()}

    @property
    def elapsed(self) -> float:
        """Seconds of recording, without pauses."""
        with self._lock:
            going = time.monotonic() - self._since if self.state == "running" else 0.0
            return self._recorded + going

    @property
    def status(self) -> str:
        """One line for people."""
        lost = sum(stream.ring.device_lost for stream in self._streams.values())
        stats = self.stats()
        lost += sum(writer["lost"] for each in stats.values() for writer in each["writers"].values())
        rates = ", ".join(f"{name} {each['rate']:.4g}/s" for name, each in stats.items())
        why = f": {self.error}" if self.error else ""
        return f"{self.state} for {units.format_duration(round(self.elapsed, 1))}, {rates}, {lost} lost{why}"

    @property
    def store(self) -> Store | None:
        """The first file or store that is written to, opened for reading; also while the run goes on."""
        return next(iter(self.stores.values()), None)

    @property
    def stores(self) -> dict[str, Store]:
        """What is written to, opened for reading, by its path or address; empty before the start."""
        if not self._begun.is_set():
            return {}
        opened = {target.label: target.store() for target in self._targets}
        return {label: store for label, store in opened.items() if store is not None}

    def stats(self) -> dict[str, dict[str, Any]]:
        """Give the figures of each stream.

        Returns
        -------
        dict
            ``{stream: {"rate": samples per second as measured, "produced": samples that the device numbered,
            "fill": the part of the ring that waits for the slowest writer (0 to 1), "device_lost": samples,
            "skipped": samples left out in pauses, "writers": {label: {"lag": samples behind, "lost": samples,
            "written": samples, "bytes": bytes}}}}``.
        """
        return {name: self._stats(stream) for name, stream in self._streams.items()}

    def latest(self, stream: str, count: int) -> Block | None:
        """Copy the newest samples of a stream; None if there are none yet.

        Raises
        ------
        NotFound
        """
        if stream not in self._streams:
            raise NotFound(f"there is no stream {stream!r}; there are {sorted(self._streams)}", key=stream)
        return self._streams[stream].ring.latest(count)

    def __repr__(self) -> str:
        places = ", ".join(target.label for target in self._targets) or "nowhere"
        return f"<Run {self.status} -> {places}>"

    # -- inside ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        names = [*self._streams, documents.MARKS]
        opened: list[Target] = []
        try:
            for target in sorted(self._targets, key=lambda target: not target.exists()):
                target.open()
                opened.append(target)
                target.check(names)
            document = documents.start_document(self.metadata, list(self._streams))
            for target in opened:
                target.begin(document, list(self._streams.values()), self._overflow)
            threading.Thread(target=self._supervise, name="run", daemon=True).start()
        except BaseException as error:
            for target in opened:
                target.abandon(error)
            raise
        self._since = time.monotonic()
        self.state = "running"
        atexit.register(self._halt)  # daemon threads would be cut off in the middle of a file
        self._begun.set()

    def _supervise(self) -> None:
        """Start the threads, wait for the end, and bring everything to it in order."""
        self._begun.wait()
        streams: dict[str, threading.Thread] = {}
        targets: list[threading.Thread] = []
        try:  # what fails here, such as one thread too many, must not leave anybody waiting for the end
            targets += [self._thread(target.label, target.run, self._marks) for target in self._targets]
            for name, stream in self._streams.items():
                streams[name] = self._thread(name, stream.run, self._ending, self._paused)
            self._await_end()
        except BaseException as error:
            self._fail(error)
        for name, thread in streams.items():
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                self._fail(DeviceFailed(f"the device {name!r} does not return from read() or stop()"))
        self._end_targets(targets)
        self._finish()

    def _end_targets(self, threads: Sequence[threading.Thread]) -> None:
        for stream in self._streams.values():
            stream.ring.close()
        with self._lock:  # a mark that was accepted is noted before the last look at the marks
            for target in self._targets:
                target.end()
        for thread in threads:
            thread.join()

    def _thread(self, name: str, work: Callable[..., None], *args: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*args)
            except BaseException as error:
                self._fail(error)

        thread = threading.Thread(target=guarded, name=f"run {name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _inside(self) -> bool:
        return threading.current_thread() in self._threads

    def _await_end(self) -> None:
        while not self._ending.is_set():
            left = None if self._duration is None else self._duration - self.elapsed
            if left is not None and left <= 0:
                self._ending.set()
            wait = left if self.state == "running" else 0.05
            self._ending.wait(wait if wait is None else min(wait, 3600.0))  # days are too long for a lock

    def _finish(self) -> None:
        ledgers = {name: stream.ledger() for name, stream in self._streams.items()}
        for target in self._targets:
            if not target.failed:
                try:
                    target.finish(self.error, ledgers)
                except BaseException as error:
                    self._fail(error)
        with self._lock:
            self._recorded = self.elapsed
            self.state = "stopped" if self.error is None else "failed"
        atexit.unregister(self._halt)
        self._over.set()

    def _halt(self) -> None:
        """End the run without raising what went wrong in it."""
        with self._lock:
            if self.state == "ready":
                self.state = "stopped"
                self._over.set()
        self._ending.set()
        if not self._inside():
            self._over.wait()

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, note the others beside it, and end the run."""
        with self._lock:
            if self._over.is_set():
                return
            if self.error is None:
                self.error = (
                    error if isinstance(error, StreamError) else RunAborted(f"the run failed: {error!r}")
                )
                self.error.__cause__ = error.__cause__ if self.error is error else error
            else:
                self.error.add_note(f"and then: {error}")
        self._ending.set()

    def _note(self, event: str, text: str) -> None:
        self._marks.append(Mark(time.time_ns(), event, text))

    def _stats(self, stream: Stream) -> dict[str, Any]:
        writers = {target.label: target.stats(stream.name) for target in self._targets}
        lag = max((writer["lag"] for writer in writers.values()), default=0)
        ledger = stream.ledger()
        return {
            "rate": stream.rate(),
            "produced": ledger["produced"],
            "fill": min(1.0, lag / stream.ring.samples),
            "device_lost": ledger["device_lost"],
            "skipped": sum(last - first + 1 for first, last in ledger["skipped"]),
            "writers": writers,
        }
