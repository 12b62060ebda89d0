"""A run: from devices through rings into files, with an end that is always known."""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire import documents
from datastore_lab.acquire.alarms import Watch, watches
from datastore_lab.acquire.figures import status_line, stream_figures
from datastore_lab.acquire.saving import save_last
from datastore_lab.acquire.stopwatch import Stopwatch
from datastore_lab.acquire.target import Mark, Target
from datastore_lab.errors import DeviceFailed, NotFound, RunAborted, StreamError

if TYPE_CHECKING:
    from datastore_lab.acquire.plan import Plan
    from datastore_lab.acquire.stream import Stream
    from datastore_lab.records import Block, Device
    from datastore_lab.store import Store

PATIENCE = 10.0
"""Seconds that a device waits for a writer that stands still (overflow ``block``), and that the end of a
run waits for a driver that does not return from its ``read``."""

_LOOK = 0.05


class Run:
    """What `acquire` returns: a recording that goes on in the background.

    As a context manager it stops at the end of the block. An error in any of its threads ends it in the
    state ``failed``, with everything before it written; `wait` and `stop` raise it.

    Attributes
    ----------
    state : {"ready", "running", "paused", "stopped", "failed"}
    error : Exception or None
        Why it failed.
    failures : dict of str to Exception
        Devices that were given up while the others went on, by the names of their streams.
    reason : str
        Why it ended, where that was neither asked for nor a failure, such as an alarm.
    metadata : dict
    """

    def __init__(self, streams: Sequence[Stream], targets: Sequence[Target], plan: Plan) -> None:
        self.state = "ready"
        self.error: BaseException | None = None
        self.failures: dict[str, BaseException] = {}
        self.reason = ""
        self.metadata = dict(plan.metadata)
        self._plan = plan
        self._streams = {stream.name: stream for stream in streams}
        self._targets = list(targets)
        self._watches: list[Watch] = []
        self._marks: list[Mark] = []
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._begun, self._ending, self._over = threading.Event(), threading.Event(), threading.Event()
        self._paused = threading.Event()
        self._watch = Stopwatch()

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
                self._watch.stop()
                self.state = "paused"
                self._note("pause", "")

    def resume(self) -> None:
        """Go on after a pause."""
        with self._lock:
            if self.state == "paused":
                self._note("resume", "")
                self._watch.start()
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
        return self._watch.seconds

    @property
    def status(self) -> str:
        """One line for people."""
        causes = [self.error] if self.error else [*self.failures.values(), self.reason]
        return status_line(self.state, self.elapsed, self.stats(), filter(None, causes))

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
            "skipped": samples left out in pauses, "outages": how often the device failed, "clock": how its
            clock runs against the host's, see `ClockFit.result`, or None, "writers": {label: {"lag": samples
            behind, "lost": samples, "written": samples, "bytes": bytes}}}}``.
        """
        return {name: stream_figures(stream, self._targets) for name, stream in self._streams.items()}

    def latest(self, stream: str, count: int) -> Block | None:
        """Copy the newest samples of a stream; None if there are none yet.

        Raises
        ------
        NotFound
        """
        if stream not in self._streams:
            raise NotFound(f"there is no stream {stream!r}; there are {sorted(self._streams)}", key=stream)
        return self._streams[stream].ring.latest(count)

    def save_last(self, seconds: float | str, to: Any) -> Any:
        """Write what the rings still hold of the last seconds, whatever is recorded besides.

        Parameters
        ----------
        seconds : float or str
            Such as ``"30 s"``; it may be more than the rings hold.
        to : path or Store
            A file of any kind that a run can be recorded into.

        Returns
        -------
        path or Store
            `to`. Each stream says in its attributes which samples were asked for (``saved_since``, in ns) and
            what the ring no longer had of them.

        Raises
        ------
        AlreadyExists
            If there is a stream of that name already.
        StreamError
            If nothing was recorded yet.
        """
        with self._lock:
            marks = list(self._marks)
        document = documents.start_document(self.metadata, list(self._streams), self._plan.parameters)
        return save_last(list(self._streams.values()), marks, document, units.parse_duration(seconds), to)

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
            document = documents.start_document(self.metadata, list(self._streams), self._plan.parameters)
            for target in opened:
                target.begin(document, list(self._streams.values()), self._plan.overflow)
            self._watches = watches(self._plan.alarms, self._streams, self._alarm)
            threading.Thread(target=self._supervise, name="run", daemon=True).start()
        except BaseException as error:
            for target in opened:
                target.abandon(error)
            raise
        self._watch.start()
        self.state = "running"
        atexit.register(self._halt)  # daemon threads would be cut off in the middle of a file
        self._begun.set()

    def _supervise(self) -> None:
        """Start the threads, wait for the end, and bring everything to it in order."""
        self._begun.wait()
        streams: dict[str, threading.Thread] = {}
        targets: list[threading.Thread] = []
        looking: list[threading.Thread] = []
        try:  # what fails here, such as one thread too many, must not leave anybody waiting for the end
            targets += [
                self._thread(target.label, self._fail, target.run, self._marks, self._fail)
                for target in self._targets
            ]
            looking += [self._thread("alarms", self._fail, watch.run) for watch in self._watches]
            for name, stream in self._streams.items():
                fail = functools.partial(self._device_failed, name)
                streams[name] = self._thread(name, fail, stream.run, self._ending, self._paused, self._note)
            self._await_end()
        except BaseException as error:
            self._fail(error)
        with self._lock:
            self._watch.stop()  # to write what waits is no recording
        for name, thread in streams.items():
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                self._fail(DeviceFailed(f"the device {name!r} does not return from read() or stop()"))
        self._end_targets(looking, targets)
        self._finish()

    def _end_targets(self, looking: Sequence[threading.Thread], threads: Sequence[threading.Thread]) -> None:
        for stream in self._streams.values():
            stream.ring.close()
        for thread in looking:  # the last alarm makes a mark too
            thread.join()
        with self._lock:  # a mark that was accepted is noted before the last look at the marks
            for target in self._targets:
                target.end()
        for thread in threads:
            thread.join()

    def _thread(
        self, name: str, fail: Callable[[BaseException], None], work: Callable[..., None], *args: Any
    ) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*args)
                if all(stream.ended.is_set() for stream in self._streams.values()):
                    self._ending.set()  # every device is at its end, such as that of a file
            except BaseException as error:
                fail(error)

        thread = threading.Thread(target=guarded, name=f"run {name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _inside(self) -> bool:
        return threading.current_thread() in self._threads

    def _await_end(self) -> None:
        duration, until = self._plan.duration, self._plan.until
        while not self._ending.is_set():
            left = None if duration is None else duration - self.elapsed
            if (left is not None and left <= 0) or self._plan.reached(self, self._streams):
                self._ending.set()
            wait = left if self.state == "running" and until is None else _LOOK
            self._ending.wait(wait if wait is None else min(wait, 3600.0))  # days are too long for a lock

    def _finish(self) -> None:
        for error in self.failures.values():
            self._fail(error)
        ledgers = {name: stream.ledger() for name, stream in self._streams.items()}
        for target in self._targets:
            if not target.failed:
                try:
                    target.finish(self.error, ledgers, self.reason)
                except BaseException as error:
                    self._fail(error)
        with self._lock:
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

    def _device_failed(self, name: str, error: BaseException) -> None:
        """Give a device up: the others go on, if there are any and nothing else was asked for."""
        with self._lock:
            alone = all(stream.ended.is_set() for stream in self._streams.values())
            if alone or self._plan.stop_on_failure or self._ending.is_set():
                self._fail(error)
            else:
                self.failures[name] = error
                self._note("failure", f"{error}; it was given up, the others go on")

    def _alarm(self, action: str, text: str) -> None:
        self._note("alarm", text)
        if action == "pause":
            self.pause()
        elif action == "stop":
            self.reason = self.reason or f"alarm: {text}"
            self._ending.set()

    def _note(self, event: str, text: str) -> None:
        self._marks.append(Mark(time.time_ns(), event, text))
