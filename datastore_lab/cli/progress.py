"""Progress bars on the terminal: none when the output is piped, nor when quiet is asked for."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datastore_lab.store.moving import Progress

_TICK = 0.2


class Bar:
    """A bar on stderr that can be written past.

    Parameters
    ----------
    shown : bool
        False prints lines only.
    """

    def __init__(self, *, shown: bool) -> None:
        self.shown = shown and sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._phase = ""

    def begin(self, phase: str, total: int | None = None, *, unit: str = "B") -> None:
        """Start a new bar; without a total it counts."""
        self.end()
        self._phase = phase
        if self.shown:
            from tqdm import tqdm

            scale = unit == "B"
            self._bar = tqdm(
                total=total,
                desc=phase,
                unit=unit,
                unit_scale=scale,
                dynamic_ncols=True,
                leave=False,
                file=sys.stderr,
            )

    def reach(self, done: int, note: str = "") -> None:
        """Move the bar to a number of bytes or items that are done."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)

    def say(self, line: str) -> None:
        """Print a line to stdout, above the bar."""
        if self._bar is None:
            print(line, flush=self.shown)
            return
        with self._bar.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def watch(self, progress: Progress) -> None:
        """Follow a copy: a bar for each of its phases."""
        counts_items = not progress.of_nbytes
        if progress.phase != self._phase:
            total = progress.of_items if counts_items else progress.of_nbytes
            self.begin(progress.phase, total, unit=" items" if counts_items else "B")
        note = "" if counts_items else f"{progress.items:,} of {progress.of_items:,} items"
        self.reach(progress.items if counts_items else progress.nbytes, note)


@contextlib.contextmanager
def bar(*, shown: bool) -> Iterator[Bar]:
    """Give a bar that is taken away at the end, whatever happens."""
    made = Bar(shown=shown)
    try:
        yield made
    finally:
        made.end()


@contextlib.contextmanager
def following_reads(made: Bar, total: int | None) -> Iterator[None]:
    """Move a bar by what this process reads, for work that says nothing of itself meanwhile."""
    read = _bytes_read()
    if not made.shown or total is None or read is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_follow, args=(made, total, read, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _follow(made: Bar, total: int, start: int, done: threading.Event) -> None:
    while not done.wait(_TICK):
        made.reach(min(total, (_bytes_read() or start) - start))


def _bytes_read() -> int | None:
    import psutil

    try:
        counters: Any = psutil.Process().io_counters()
    except (AttributeError, psutil.Error, OSError):  # not on every system
        return None
    return int(getattr(counters, "read_chars", counters.read_bytes))
