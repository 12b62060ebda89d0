"""The live panel of a run: buttons, figures, numbers.

Three counts are kept apart: what the acquisition lost, frames that this panel skipped because the page
was behind, and frames that the page dropped because a newer one came first. Only the first is about data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from datastore_lab.notebook import fallback
from datastore_lab.notebook.link import Link
from datastore_lab.notebook.plots import plots_of
from datastore_lab.notebook.status import ENDED, summary
from datastore_lab.notebook.worker import Worker, off_main

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Block, Stat

STATIC = Path(__file__).parent / "static"
_STATUS = 0.25
_ACTIONS = frozenset({"start", "pause", "resume", "stop"})


class Panel(anywidget.AnyWidget):
    """A run in the notebook; use `datastore_lab.notebook.panel` to get one.

    One thread takes the newest samples of each stream and sends them as one binary message per frame. It
    exists only while the run goes on and a page is looking, and never waits for either.

    Parameters
    ----------
    run : Run
    fps : float, default 30
        Frames per second at most.
    window : float, optional
        Seconds that line plots show; by default about 4,000 samples, between 0.5 and 30 s.
    """

    _esm = STATIC / "live.js"
    _css = STATIC / "live.css"
    title = traitlets.Unicode().tag(sync=True)
    plots: Any = traitlets.List().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    bokeh = traitlets.Unicode().tag(sync=True)

    def __init__(self, run: Any, *, fps: float = 30.0, window: float | None = None) -> None:
        import bokeh

        self.run = run
        self._link = Link(fps)
        self._plots = {stream: plots_of(stream, spec, window=window) for stream, spec in _streams(run)}
        self._worker = Worker("datastore-lab-panel")
        self._fault: str | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False
        self._seen: dict[str, int] = {}
        self._served: set[str] = set()
        described = [plot.describe() for plots in self._plots.values() for plot in plots]
        super().__init__(title=_title(run), plots=described, status=summary(run), bokeh=bokeh.__version__)
        self.on_msg(self._receive)
        off_main(self)

    def close(self) -> None:
        """Let go of the page and end the panel's threads; the run goes on."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._worker.close()
        super().close()

    @property
    def skipped(self) -> int:
        """Frames that were not sent because the page was behind."""
        return self._link.skipped

    def to_html(self) -> str:
        """Give the state and the totals as HTML without script, for pages without a kernel."""
        return fallback.panel_html(self.title, summary(self.run))

    def __repr__(self) -> str:
        return f"<Panel of {self.title}, {self.run.state}>"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "text/plain": repr(self), "text/html": self.to_html()}, metadata

    # -- messages from the page ---------------------------------------------------------------------

    def _receive(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if not isinstance(message, dict) or self._closed:
            return
        op = message.get("op")
        self._link.hear(message)
        if op == "bokeh":
            self._worker.submit(lambda: self._send_bokeh(str(message.get("page"))))
        elif op == "mark":
            self._worker.submit(lambda: self._do(lambda: self.run.mark(str(message.get("text", "")))))
        elif op in _ACTIONS:
            self._worker.submit(lambda: self._do(getattr(self.run, op)))
        elif op == "ready":
            self._seen.clear()  # a page that is new gets every stream at once
        self._look_alive()

    def _do(self, action: Callable[[], Any]) -> None:
        try:
            action()
            self._fault = None
        except Exception as error:  # shown in the panel, where the button was pressed
            told = error is self.run.error  # the status says so already
            self._fault = None if told else f"{type(error).__name__}: {error}"
        self._look_alive()

    def _send_bokeh(self, page: str) -> None:
        import bokeh

        if page in self._served:  # it asks until it is answered
            return
        self._served.add(page)
        script = Path(bokeh.__file__).parent / "server/static/js/bokeh.min.js"
        self.send({"op": "bokeh"}, [script.read_bytes()])

    # -- the display thread -------------------------------------------------------------------------

    def _look_alive(self) -> None:
        """Have the display thread do a round now, starting it if there is none."""
        with self._lock:
            if self._closed:
                return
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._display, name="datastore-lab-display", daemon=True
                )
                self._thread.start()

    def _display(self) -> None:
        told = 0.0
        while True:
            woken = self._wake.wait(self._link.interval)
            self._wake.clear()
            ended = self.run.state in ENDED
            if self._link.watched:
                self._show()
            if woken or ended or time.monotonic() - told > _STATUS:
                told = time.monotonic()
                self._tell()
            with self._lock:  # a wake-up that comes now finds the thread gone, and starts another one
                if self._closed or ((ended or not self._link.attended) and not self._wake.is_set()):
                    self._thread = None
                    return

    def _tell(self) -> None:
        status = summary(self.run)
        self.send({"op": "status", **status, "fault": self._fault, "skipped": self._link.skipped})

    def _show(self) -> None:
        """Send what is new as one message; nothing if nothing is new or the page is behind."""
        fresh = {stream: block for stream in self._plots if (block := self._newest(stream)) is not None}
        number = self._link.take() if fresh else None
        if number is None:
            return
        parts, buffers = [], []
        for stream, block in fresh.items():
            for plot in self._plots[stream]:
                part = plot.part(block)
                described = {"source": plot.source, "columns": _described(part.columns)}
                parts.append({**described, "y": part.y, "unit": part.unit})
                buffers += [array.data.cast("B") for array in part.columns.values()]
            self._seen[stream] = block.first + len(block.time)
        self.send({"op": "frame", "seq": number, "time": time.time(), "parts": parts}, buffers)

    def _newest(self, stream: str) -> Block | None:
        plots = self._plots[stream]
        block: Block | None = self.run.latest(stream, max(plot.samples for plot in plots)) if plots else None
        if block is None or not len(block.time) or self._seen.get(stream) == block.first + len(block.time):
            return None
        return block


def _described(columns: Mapping[str, NDArray[Any]]) -> list[list[Any]]:
    return [[name, array.dtype.str[1:], list(array.shape)] for name, array in columns.items()]


def _streams(run: Any) -> Iterator[tuple[str, Stat]]:
    devices = run.devices
    for device in devices.values() if isinstance(devices, Mapping) else devices:
        yield device.name, device.describe()


def _title(run: Any) -> str:
    """Name a run by its metadata, or by what it records."""
    name = getattr(run, "metadata", {}).get("name")
    return str(name or ", ".join(stream for stream, _ in _streams(run)))
