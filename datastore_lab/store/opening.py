"""Opening a place: which engine it takes."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import EngineError, LabError
from datastore_lab.records import COMPACT_ABOVE, check_compact_above, check_durability
from datastore_lab.registry import DATABASES, ENGINES, SUFFIXES
from datastore_lab.store.mapping import Store
from datastore_lab.store.sharing import alone, share
from datastore_lab.store.sniffing import head

if TYPE_CHECKING:
    from datastore_lab.keys import Key

MODES = ("r", "r+", "a", "w", "x")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAIN = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*::[A-Za-z][A-Za-z0-9+.-]*:/")
_PASSWORD = re.compile(r"//[^/]*@")


def open_store(
    path: str | os.PathLike[str],
    mode: str = "a",
    *,
    timeout: float = 0.0,
    durability: str = "disk",
    compact_above: float | None = COMPACT_ABOVE,
) -> Store:
    """Open a place where the lab keeps things.

    Parameters
    ----------
    path : str or path-like
        ``"lab.h5"``, ``"lab.zarr"``, ``"lab.parquets"``, ``"run.arrow"``, or a URL: ``"memory://"``,
        ``"file:///data/lab.h5"``, or that of a database: ``"sqlite:///lab.sqlite"``,
        ``"postgresql://user@host/database?lab=name"``, ``"mariadb://user@host/database"``.
        An existing file is recognised by its content, a new one by its suffix.
    mode : {"a", "r", "r+", "w", "x"}
        As in h5py: ``a`` opens or creates, ``r`` only reads, ``r+`` must exist, ``w`` starts empty, ``x``
        must not exist.
    timeout : float, default 0.0
        How long to wait for another process that has the place open for writing, in seconds.
    durability : {"disk", "process"}
        What a change survives once it has returned: a power cut, or (faster) only the end of the process.
    compact_above : float or None, default 0.5
        An HDF5 or SQLite file of which more than this share, and at least 64 MB, is the space of what was
        deleted is compacted when it is closed; None leaves that to `Store.compact`. Of no effect on other
        formats.

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
    if _CHAIN.match(text):
        shown = _PASSWORD.sub("//***@", text)
        raise EngineError(
            f"{shown!r} is a chain of URLs, which is not opened: name the place itself, or fetch it first",
            key=shown,
        )
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() != "file":
        name = scheme[1].lower().partition("+")[0]  # what follows the plus is the driver of a database
        address = text if name in DATABASES else text[scheme.end() :]
        engine_class = _engine_class(DATABASES.get(name, name), text)
        engine = engine_class(address, mode, **options, **_space(engine_class, compact_above))
        return Store(engine) if name == "memory" else alone(engine, mode)
    place, name = recognised(_from_file_url(text) if scheme else text)
    engine_class = ENGINES.load(name)
    return share(engine_class, place, mode, {**options, **_space(engine_class, compact_above)})


def reopen(url: str, mode: str, prefix: Key) -> Store:
    """Open what was pickled as an address."""
    store = open_store(url, mode)
    return store.group(prefix) if prefix else store


def _options(timeout: float, durability: str) -> dict[str, Any]:
    """Give the options that are not the default ones: an engine of another distribution may lack them."""
    check_durability(durability)
    given: dict[str, Any] = {"timeout": timeout} if timeout else {}
    return given if durability == "disk" else {**given, "durability": durability}


def _space(engine_class: Any, compact_above: float | None) -> dict[str, Any]:
    """Give the option for engines that have it: the others keep no dead space, or use it again."""
    if check_compact_above(compact_above) == COMPACT_ABOVE:
        return {}
    known = inspect.signature(engine_class).parameters
    return {"compact_above": compact_above} if "compact_above" in known else {}


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
        others = [name for name in ENGINES.names() if name not in {*file_engines, *DATABASES.values()}]
        known = ", ".join(f"{name}://" for name in ["file", *DATABASES, *others])
        shown = _PASSWORD.sub("//***@", text)
        raise EngineError(
            f"no engine opens {shown!r}: the scheme {scheme!r} is unknown (known: {known})", key=shown
        )
    return engine


def recognised(path: str) -> tuple[Path, str]:
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
        if place.is_file() and name != "sqlite":
            beginning = head(place, 16)
            if beginning.startswith(b"\x89HDF\r\n\x1a\n"):
                return "hdf5"
            if beginning.startswith(b"ARROW1"):
                return "arrow"
            if beginning == b"SQLite format 3\0":
                return "sqlite"
    if name is None:
        raise EngineError(
            f"can't tell the format of {str(place)!r} from its name or content; use one of the suffixes "
            f"{', '.join(SUFFIXES)}",
            key=str(place),
        )
    if name not in {"zarr", "parquet-folder", "trials"} and place.is_dir():
        raise EngineError(f"{str(place)!r} is a folder, but {suffix} is the suffix of a file", key=str(place))
    return name
