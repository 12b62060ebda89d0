"""Storages: stores that keep results under the arguments they belong to.

Each result is one record at ``("results", <digest of the arguments>)``, with the attributes ``created`` (UTC)
and ``arguments`` (as text, for people); its value holds ``result``, ``args``, ``kwargs`` and ``extra``. What
`cached` and `interpolated` keep lies beside it, under ``("cache", ...)``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datastore_lab.cache import entries
from datastore_lab.cache.key import describe
from datastore_lab.cache.upkeep import owners
from datastore_lab.cache.walk import digest
from datastore_lab.errors import AlreadyExists, NotFound
from datastore_lab.registry import ENGINES
from datastore_lab.store import Store, open_store
from datastore_lab.store.sharing import share

RESULTS = "results"


class Result(NamedTuple):
    """A stored result with the arguments it was stored under."""

    result: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    extra: Any


class Storage(Store):
    """A store that also keeps results under arguments; see `StorageMemory` and `StorageHDF5`.

    Parameters
    ----------
    opened : Store
        What it is a view of, and closes.
    """

    def __init__(self, opened: Store) -> None:
        super().__init__(opened.engine, writable=opened.writable)
        self._opened = opened  # (its engine is let go of when it is collected)
        self._streams = opened._streams
        self._release = opened.close

    @property
    def filename(self) -> str | None:
        """The file that it lies in; None for memory."""
        return None

    def store(
        self,
        result: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        internal_data: Any = None,
    ) -> None:
        """Keep a result under its arguments; replaces what was stored under equal ones.

        Parameters
        ----------
        result : object
        args : sequence, optional
            Positional arguments. 1, 1.0, True and "1" are different ones.
        kwargs : mapping of str to object, optional
            Keyword arguments.
        internal_data : object, optional
            Something to come back with the result, that is no part of its key.

        Raises
        ------
        NotStorable, ReadOnly, EngineError

        Examples
        --------
        >>> storage = StorageMemory()
        >>> storage.store(6.0, args=(2, 3))
        >>> storage.retrieve((2, 3)).result, len(storage)
        (6.0, 1)
        """
        placed, named = tuple(args or ()), dict(kwargs or {})
        value = {"result": result, "args": placed, "kwargs": named, "extra": internal_data}
        shown = describe({**{str(number): arg for number, arg in enumerate(placed)}, **named})
        attrs = {"created": _now(), "arguments": shown}
        self.put(_key(placed, named), value, attrs=attrs)

    def retrieve(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None) -> Result:
        """Give what is stored under arguments.

        Returns
        -------
        Result
            ``(result, args, kwargs, extra)``; the caller's own.

        Raises
        ------
        NotFound
            A KeyError: nothing is stored under these arguments.
        """
        placed, named = tuple(args or ()), dict(kwargs or {})
        try:
            return Result(**self[_key(placed, named)])
        except NotFound:
            shown = describe({**{str(number): arg for number, arg in enumerate(placed)}, **named})
            raise NotFound(f"{self.url} holds no result for the arguments ({shown})", key=shown) from None

    def iterdata(self, kwargs: Mapping[str, Any] | None = None) -> Iterator[Result]:
        """Yield the results with these keyword arguments, in no order; all of them without any."""
        wanted = None if kwargs is None else digest(dict(kwargs))
        for name in self._names((RESULTS,)):
            found = Result(**self[RESULTS, name])
            if wanted is None or digest(found.kwargs) == wanted:
                yield found

    def clear(
        self, time_max: dt.datetime | float | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Delete results; without arguments everything in this store.

        Parameters
        ----------
        time_max : datetime or float, optional
            Delete only what is older; seconds since 1970, or a datetime (local time without a zone).
        kwargs : mapping, optional
            Delete only results that were stored under exactly these keyword arguments. What `cached` has kept
            has none that are known, and stays.
        """
        if time_max is None and kwargs is None:
            super().clear()
            return
        self._refuse_read_only()
        wanted = None if kwargs is None else digest(dict(kwargs))
        with self.transaction():
            for key in list(self._keys(cached=kwargs is None)):
                if self._older(key, time_max) and (wanted is None or digest(self[key]["kwargs"]) == wanted):
                    self.delete(key)

    def repack(self) -> int:
        """Give back the space of what was deleted; returns bytes freed."""
        return self.compact()

    def __len__(self) -> int:
        """Count the results, those that `cached` and `interpolated` keep here included."""
        return sum(1 for _ in self._keys(cached=True))

    def __bool__(self) -> bool:
        return True  # (a storage without results is one all the same)

    def _keys(self, *, cached: bool) -> Iterator[tuple[str, ...]]:
        yield from ((RESULTS, name) for name in self._names((RESULTS,)))
        for owner in sorted(owners(self)) if cached else ():
            yield from (entries.entry_key(owner, name) for name in self._names((entries.PREFIX, owner)))

    def _names(self, key: tuple[str, ...]) -> list[str]:
        try:
            return list(self.children(key))
        except NotFound:
            return []

    def _older(self, key: tuple[str, ...], time_max: dt.datetime | float | None) -> bool:
        if time_max is None:
            return True
        created = dt.datetime.fromisoformat(str(self.attrs(key).get("created")))
        limit = time_max.timestamp() if isinstance(time_max, dt.datetime) else float(time_max)
        return created.timestamp() < limit


class StorageMemory(Storage):
    """Results in the memory of this process.

    Examples
    --------
    >>> from datastore_lab.cache import cached
    >>> storage = StorageMemory()
    >>> @cached(storage)
    ... def square(x): return x * x
    >>> square(3), square(3), len(storage)
    (9, 9, 1)
    """

    def __init__(self) -> None:
        super().__init__(open_store("memory://"))


class StorageHDF5(Storage):
    """Results in an HDF5 file, whatever its name ends with.

    Parameters
    ----------
    filename : path-like
    readonly : bool, default False
        The file must be there, and is never changed.
    truncate : bool, default False
        Delete what is in the file.
    temporary : bool, default False
        Make a new file and remove it when the storage is closed, collected as garbage, or when the process
        ends in whichever way: a small process waits for that.

    Raises
    ------
    NotFound
        If `readonly` and there is no file.
    AlreadyExists
        If `temporary` and there is a file: it would be deleted.
    ValueError
        If `readonly` comes with one of the others.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        readonly: bool = False,
        truncate: bool = False,
        temporary: bool = False,
    ) -> None:
        if readonly and (truncate or temporary):
            raise ValueError("a storage that is read only can be neither truncated nor temporary")
        path = Path(filename).expanduser().resolve()
        if temporary and not truncate and path.exists():
            raise AlreadyExists(
                f"{str(path)!r} is there already, and a temporary storage is deleted in the end; choose "
                "another name, or give truncate=True too",
                key=str(path),
            )
        mode = "r" if readonly else "w" if truncate else "x" if temporary else "a"
        self._filename = os.fspath(filename)
        watch = (
            _watch(path) if temporary else None
        )  # (first: nothing is left behind if this process is killed)
        try:
            super().__init__(share(ENGINES.load("hdf5"), path, mode, {}))
        except BaseException:
            if watch is not None:
                watch.kill()
                _end(watch)
            raise
        self._remove = None if watch is None else weakref.finalize(self, _end, watch)

    @property
    def filename(self) -> str:
        """The file that it lies in."""
        return self._filename

    def close(self) -> None:
        """Release the file; one that is temporary is removed."""
        try:
            super().close()
        finally:
            if self._remove is not None:
                self._remove()


_REMOVE = """
import os, shutil, sys
sys.stdin.buffer.read()
for path in sys.argv[1:]:
    try:
        os.remove(path)
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
"""


def _watch(path: Path) -> subprocess.Popen[bytes]:
    """Start a process that removes a file as soon as this one lets go of it, or is no more."""
    beside = [str(path), f"{path}-journal", f"{path}-cache"]
    return subprocess.Popen(  # noqa: S603 (Python itself)
        [sys.executable, "-I", "-S", "-c", _REMOVE, *beside],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _end(watch: subprocess.Popen[bytes]) -> None:
    assert watch.stdin is not None
    with contextlib.suppress(OSError):
        watch.stdin.close()
    watch.wait()


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]:
    return (RESULTS, digest((args, kwargs), "the arguments"))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
