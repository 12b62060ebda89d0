"""Opening a place: which engine it takes, and one engine per file and process."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import AlreadyExists, EngineError, LabError
from datastore_lab.records import check_durability
from datastore_lab.registry import ENGINES, SUFFIXES
from datastore_lab.store.mapping import Store

if TYPE_CHECKING:
    from datastore_lab.records import Engine

MODES = ("r", "r+", "a", "w", "x")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(
    path: str | os.PathLike[str], mode: str = "a", *, timeout: float = 0.0, durability: str = "disk"
) -> Store:
    """Open a place where the lab keeps things.

    Parameters
    ----------
    path : str or path-like
        ``"lab.h5"``, ``"lab.zarr"``, ``"lab.parquets"``, ``"run.arrow"``, or a URL: ``"memory://"``,
        ``"file:///data/lab.h5"``.
        An existing file is recognised by its content, a new one by its suffix.
    mode : {"a", "r", "r+", "w", "x"}
        As in h5py: ``a`` opens or creates, ``r`` only reads, ``r+`` must exist, ``w`` starts empty, ``x``
        must not exist.
    timeout : float, default 0.0
        How long to wait for another process that has the place open for writing, in seconds.
    durability : {"disk", "process"}
        What a change survives once it has returned: a power cut, or (faster) only the end of the process.

    Returns
    -------
    Store
        Usable as a context manager. Opening a file again in the same process shares one engine.

    Raises
    ------
    NotFound, AlreadyExists
        By the mode.
    EngineError
        If no engine knows the place, or it is a folder where a file is expected.
    Foreign, Corrupt, ReadOnly, Locked
        As the file turns out.

    Examples
    --------
    >>> with open_store("memory://") as store:
    ...     store["answer"] = 42
    ...     store["answer"]
    42
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    options = _options(timeout, durability)
    text = str(path) if isinstance(path, Path) else _as_text(path)
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() != "file":
        return Store(_engine_class(scheme[1].lower(), text)(text[scheme.end() :], mode, **options))
    place, name = _recognised(_from_file_url(text) if scheme else text)
    return _shared(ENGINES.load(name), place, mode, options)


def _options(timeout: float, durability: str) -> dict[str, Any]:
    """Give the options that are not the default ones: an engine of another distribution may lack them."""
    check_durability(durability)
    given: dict[str, Any] = {"timeout": timeout} if timeout else {}
    return given if durability == "disk" else {**given, "durability": durability}


def _as_text(path: Any) -> str:
    if isinstance(path, str):
        return path
    if hasattr(path, "__fspath__"):
        return str(path.__fspath__())
    raise TypeError(f"open_store takes a path or URL, not {type(path).__name__}")


def _from_file_url(text: str) -> str:
    from urllib.request import url2pathname

    host, slash, path = text.partition("://")[2].partition("/")  # "?" and "#" are part of a file's name
    if host not in {"", "localhost"}:
        raise EngineError(f"{text!r} names a file of another computer ({host})", key=text)
    return url2pathname(slash + path)


def _engine_class(scheme: str, text: str) -> Any:
    file_engines = set(SUFFIXES.values())
    engine = None if scheme in file_engines else ENGINES.find(scheme)
    if engine is None:
        known = ", ".join(f"{name}://" for name in ["file", *ENGINES.names()] if name not in file_engines)
        raise EngineError(
            f"no engine opens {text!r}: the scheme {scheme!r} is unknown (known: {known})", key=text
        )
    return engine


def _recognised(path: str) -> tuple[Path, str]:
    """Give the place without links in its path, and the name of its engine."""
    try:
        place = Path(path).expanduser()
        return place.resolve(), _engine_name(place)
    except LabError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # too long, with NUL, a circle of links
        raise EngineError(f"{path!r} is no path that can be opened: {error}", key=path) from error


def _engine_name(place: Path) -> str:
    """Recognise what exists by its content, what is new by its suffix."""
    suffix = place.suffix.lower()
    name = SUFFIXES.get(suffix) or (suffix[1:] if suffix and ENGINES.find(suffix[1:]) else None)
    with contextlib.suppress(OSError):
        if place.is_dir() and (place / "zarr.json").is_file():
            return "zarr"
        if place.is_dir() and (place / "lab.yaml").is_file():
            return "parquet-folder"
        if place.is_file():
            with place.open("rb") as file:
                head = file.read(8)
            if head == b"\x89HDF\r\n\x1a\n":
                return "hdf5"
            if head.startswith(b"ARROW1"):
                return "arrow"
    if name is None:
        raise EngineError(
            f"can't tell the format of {str(place)!r} from its name or content; use one of the suffixes "
            f"{', '.join(SUFFIXES)}",
            key=str(place),
        )
    if name not in {"zarr", "parquet-folder"} and place.is_dir():
        raise EngineError(f"{str(place)!r} is a folder, but {suffix} is the suffix of a file", key=str(place))
    return name


class _Shared:
    """An engine with the number of stores of this process that use it."""

    def __init__(self, engine: Engine, place: tuple[int, int] | None) -> None:
        self.engine = engine
        self.place = place
        self.users = 0


_open: dict[tuple[str, bool], _Shared] = {}
_guard = threading.RLock()


def _shared(engine_class: Any, place: Path, mode: str, options: dict[str, Any]) -> Store:
    """Open a file, or join the engine that this process has on it already.

    A notebook cell that opens a store is run again and again: a second engine would be locked out by the
    first one.
    """
    path = str(place)
    with _guard:
        entry = _find(path, mode)
        if entry is not None and mode == "x":
            raise AlreadyExists(f"{path!r} exists already, and is open", key=path)
        if entry is None:
            engine = engine_class(path, mode, **options)
            entry = _open[(path, mode != "r")] = _Shared(engine, _place(path))
        elif mode == "w":
            Store(entry.engine).clear()
        entry.users += 1
        store = Store(entry.engine, writable=mode != "r")
        store._release = weakref.finalize(store, _leave, path, entry)
    return store


def _find(path: str, mode: str) -> _Shared | None:
    """Find the open engine of a file; close one whose file was removed or replaced by another."""
    entry = _open.get((path, True)) or (_open.get((path, False)) if mode == "r" else None)
    if entry is None or not entry.engine.writable or entry.place == _place(path):
        return entry
    try:
        with entry.engine.transaction():
            entry.place = _place(path)  # written anew by the engine itself
    except EngineError:
        del _open[(path, True)]
        entry.engine.close()
        return None
    return entry


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


def _leave(path: str, entry: _Shared) -> None:
    with _guard:
        entry.users -= 1
        if entry.users:
            return
        for key in [(path, True), (path, False)]:
            if _open.get(key) is entry:
                del _open[key]
        entry.engine.close()


def _after_fork() -> None:
    """Let the child open its own engines: those of its parent are of no use to it."""
    _open.clear()
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(  # the lock is held meanwhile, so that the child does not inherit that of a thread
        before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork
    )
