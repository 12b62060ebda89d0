"""One engine per file and process, shared by its stores, and closed when the last of them is gone.

A store that nobody refers to any more may be noticed by the garbage collector at any moment in any thread,
also in the middle of an engine's work and with its lock held. What is found then is closed by a thread of its
own, which holds no lock of any engine: closing on the spot could wait for ever, and would enter libraries
that are at work.
"""

from __future__ import annotations

import atexit
import collections
import gc
import os
import queue
import threading
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import AlreadyExists, EngineError, LabError
from datastore_lab.store.appending import Streams
from datastore_lab.store.mapping import Store

if TYPE_CHECKING:
    from datastore_lab.records import Engine


class Shared:
    """An engine with the stores of this process that use it, and the streams that are open on it."""

    def __init__(self, engine: Engine, place: tuple[int, int] | None) -> None:
        self.engine = engine
        self.place = place
        self.users = 0
        self.streams = Streams()
        self.process = os.getpid()


_open: dict[tuple[str, bool], Shared] = {}
_guard = threading.RLock()
"""Held while engines are opened and closed, and never while waiting for an engine that a store still uses."""


def share(engine_class: Any, place: Path, mode: str, options: dict[str, Any]) -> Store:
    """Open a file, or join the engine that this process has on it already.

    A notebook cell that opens a store is run again and again: a second engine would be locked out by the
    first one.
    """
    path = str(place)
    _start_closing()
    while True:
        with _guard:
            _settle()
            path = _open_under(path)
            entry = _open.get((path, True)) or (_open.get((path, False)) if mode == "r" else None)
            joined = entry is not None
            if entry is None:
                engine = engine_class(path, mode, **options)
                entry = _open[(path, mode != "r")] = Shared(engine, _place(path))
            entry.users += 1
        if not joined or _is_there(path, entry):
            return _store_on(entry, path, mode, joined=joined)


def _open_under(path: str) -> str:
    """Give the name under which this process has a file open.

    A second engine by a hard link would not see the journal of the first: each would undo what the other
    wrote.
    """
    if (path, True) in _open or (path, False) in _open or (place := _place(path)) is None:
        return path
    return next((other for other, _writes in _open if _place(other) == place), path)


def alone(engine: Engine, mode: str) -> Store:
    """Give the only store of an engine, which is closed with it."""
    _start_closing()
    entry = Shared(engine, None)
    entry.users = 1
    return _store_on(entry, engine.url, mode, joined=False)


def _store_on(entry: Shared, path: str, mode: str, *, joined: bool) -> Store:
    store = Store(entry.engine, writable=mode != "r")
    store._streams = entry.streams
    store._release = weakref.finalize(store, _let_go, path, entry)
    if joined and mode == "x":
        store.close()
        raise AlreadyExists(f"{path!r} exists already, and is open", key=path)
    if joined and mode == "w":
        store.clear()
    return store


def _is_there(path: str, entry: Shared) -> bool:
    """Whether an open engine still has its file; lets go of one whose file was removed or replaced."""
    if not entry.engine.writable or entry.place == _place(path):
        return True
    try:
        with entry.engine.transaction():
            entry.place = _place(path)  # written anew by the engine itself
    except EngineError:
        with _guard:
            if _open.get((path, True)) is entry:
                del _open[(path, True)]
            entry.users -= 1
        entry.engine.close()
        return False
    return True


def _place(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def users(engine: Engine) -> int:
    """Count the stores of this process that share an engine."""
    with _guard:
        return max((entry.users for entry in _open.values() if entry.engine is engine), default=0)


# -- closing -----------------------------------------------------------------------------------------------

_left: collections.deque[tuple[str, Shared]] = collections.deque()
_wake: queue.SimpleQueue[None] = queue.SimpleQueue()
_collecting = threading.local()
_closer: list[threading.Thread] = []


def _let_go(path: str, entry: Shared) -> None:
    """Take note that a store is gone: the finalizer of a store."""
    _left.append((path, entry))
    if getattr(_collecting, "now", False):
        _wake.put(None)  # safe in a finalizer, unlike a lock
    else:
        _settle()


def _settle() -> None:
    """Close the engines whose last store is gone."""
    with _guard:
        while _left:
            _leave(*_left.popleft())


def _leave(path: str, entry: Shared) -> None:
    entry.users -= 1
    if entry.users:
        return
    for key in [(path, True), (path, False)]:
        if _open.get(key) is entry:
            del _open[key]
    try:
        if entry.process == os.getpid():
            entry.streams.flush()
    finally:
        entry.engine.close()


def _start_closing() -> None:
    """Start the thread that closes what the garbage collector finds; once in a process."""
    with _guard:
        if _closer:
            return
        gc.callbacks.append(_note_collection)
        atexit.register(_settle)
        thread = threading.Thread(target=_close_left, name="datastore-lab closes stores", daemon=True)
        _closer.append(thread)
        thread.start()


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    _collecting.now = phase == "start"


def _close_left() -> None:
    while True:
        _wake.get()
        try:
            _settle()
        except LabError as error:
            warnings.warn(
                f"a store that was not closed could not be closed: {error}", RuntimeWarning, stacklevel=1
            )


def _forget_closing() -> None:
    """Start anew in a forked child, which has no such thread."""
    global _wake  # noqa: PLW0603 (the old one may be locked)
    _wake = queue.SimpleQueue()
    _left.clear()
    _closer.clear()
    if _note_collection in gc.callbacks:
        gc.callbacks.remove(_note_collection)


def _after_fork() -> None:
    """Let the child open its own engines: those of its parent are of no use to it."""
    _open.clear()
    _forget_closing()
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(  # the lock is held meanwhile, so that the child does not inherit that of a thread
        before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork
    )
