"""Appending trials to a task: arrays first, synced; then the row that makes them count."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.engines.trials.arrays import FORMS
from datastore_lab.engines.trials.attributes import TEXT, accepts, as_type, column, common
from datastore_lab.errors import AlreadyExists, BadKey, EngineError, Foreign, LabError, NotStorable
from datastore_lab.integrity import BIRTH, birth
from datastore_lab.keys import Key, check, show
from datastore_lab.records import RESERVED, ArrayInfo, Stat
from datastore_lab.streams.names import MEND
from datastore_lab.streams.text import sidecar
from datastore_lab.streams.text.read import TextFile
from datastore_lab.streams.text.sidecar import SIDECAR
from datastore_lab.streams.text.write import TextAppender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.streams.rows import StreamAppender

TABLE = "trials.csv"
SUMS = "lab_arrays"
"""Column that says which arrays a trial has, and the sums of their blocks."""


class TaskAppender:
    """A task that trials are added to, one by one; each of them is there completely or not at all.

    Parameters
    ----------
    path : str
        Of the table.
    key : Key
    release : callable
        Called when the task is closed.
    durable : bool
        Sync each trial.
    unsettled : set, optional
        As of `StreamAppender`.
    arrays : {"npy", "hdf5"} or None
        Where arrays go: see `datastore_lab.engines.trials.arrays`. None for a table that has none.
    """

    def __init__(
        self,
        path: str,
        key: Key,
        release: Callable[[], None],
        *,
        durable: bool = True,
        unsettled: set[StreamAppender] | None = None,
        arrays: str | None = "npy",
    ) -> None:
        self.key = key
        self._table: TextAppender
        self._arrays: Any = FORMS[arrays](Path(path).parent, durable=durable) if arrays else None
        self._unsettled = set() if unsettled is None else unsettled
        self._path, self._durable, self._release = path, durable, release
        self._lock = threading.RLock()
        self.closed = False
        if os.path.lexists(path + SIDECAR) and not sidecar.load(path).size:
            sidecar.discard(path)  # its first writer was stopped before there was a header
        if os.path.lexists(path) or os.path.lexists(path + SIDECAR):
            self._go_on()
            if self._arrays is not None:
                self._arrays.tidy(self._table.rows)
        else:
            self._check_empty()
            self._columns: dict[str, np.dtype[Any]] = {SUMS: TEXT}
            self._meta: Mapping[str, Any] = {BIRTH: birth()}
            self._table = TextAppender(path, key, self._spec(), lambda: None, durable=durable)
        self._behind = False

    def _check_empty(self) -> None:
        """Refuse to add to arrays whose table is gone: a new trial would take the number of an old one."""
        if self._arrays is not None and (found := self._arrays.strangers()):
            raise AlreadyExists(
                f"{found!r} holds arrays of trials, but there is no {TABLE!r} beside it: put it back, or "
                "begin a task of another name",
                key=self.key,
            )

    def _go_on(self) -> None:
        if not os.path.lexists(self._path + SIDECAR):
            raise Foreign(
                f"{self._path!r} was made by another program, and is only read: begin a task of another name",
                key=self.key,
            )
        sidecar.settle(self._path, durable=self._durable)
        about = sidecar.load(self._path)
        if SUMS not in about.stat.arrays and self._arrays is not None:
            raise AlreadyExists(f"{show(self.key)!r} is a stream, not a task with trials", key=self.key)
        self._columns = {name: dtypes.parse(info.dtype) for name, info in about.stat.arrays.items()}
        self._meta = about.stat.meta
        self._table = TextAppender(
            self._path, self.key, about.stat, lambda: None, durable=self._durable, after=about
        )
        self._behind = False

    def _spec(self) -> Stat:
        infos = {
            name: ArrayInfo(dtypes.name(dtype), (0,), ("trial",), 0, None)
            for name, dtype in self._columns.items()
        }
        return Stat("stream", infos, self._meta)

    def __len__(self) -> int:
        return self._table.rows

    def columns(self) -> dict[str, list[Any]]:
        """Read the attributes of all trials, as lists."""
        with self._lock:
            file = TextFile(self._path)
            return {name: file.read(name).tolist() for name in self._columns if name != SUMS}

    def write(self, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> int:
        """Add a trial, and give its number.

        Parameters
        ----------
        attributes : mapping of str to number, text, time or None
            Of any names; earlier trials lack those that are new.
        arrays : mapping of str to ndarray, optional
            Of any shapes.

        Raises
        ------
        NotStorable
            If something can't be stored; nothing was written.
        EngineError
            If the disk fails; the trial is not there, those before are.
        """
        if not self._table.mine:
            raise EngineError(
                f"the task {show(self.key)!r} is written by the process from which this one was forked; open "
                "the folder and begin a task of another name here",
                key=self.key,
            )
        with self._lock:
            if self.closed:
                raise EngineError(f"the task {show(self.key)!r} is closed", key=self.key)
            given = {name: np.asarray(array) for name, array in (arrays or {}).items()}
            row = {name: column(name, value) for name, value in attributes.items()}
            self._check_names(row, given)
            with self._explained(f"trial {len(self)}"):
                self._catch_up()
                self._widen(row)
                return self._write(row, given)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            ours = isinstance(error, LabError)
            if ours and not isinstance(error, EngineError):
                raise
            raise EngineError(
                f"{what} of {show(self.key)!r} can't be written: {error}; those before are there",
                key=self.key,
            ) from error

    def _catch_up(self) -> None:
        """Open the table that was put into the place of the old one, if that failed before."""
        if self._behind:
            self._go_on()
        self._table.unsettled = self._unsettled

    def _check_names(self, row: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        for name in (*row, *arrays):
            check((name,))
        for name in row:
            if name.startswith(RESERVED):
                raise BadKey(f"{name!r} can't be an attribute: {RESERVED!r} begins reserved names", key=name)
            if name not in self._columns and self._arrays is not None and self._arrays.has(name):
                raise AlreadyExists(f"{name!r} is an array of {show(self.key)!r}", key=name)
        if arrays and self._arrays is None:
            raise NotStorable(f"{show(self.key)!r} is a table without arrays", key=self.key)
        for name, array in arrays.items():
            if "%~" in media.escape_file(name) or media.escape_file(name) == TABLE:
                raise BadKey(f"{name!r} can't be the name of a folder", key=name)
            if name in row or name in self._columns:
                raise AlreadyExists(f"{name!r} is an attribute of {show(self.key)!r}", key=name)
            dtypes.check(array.dtype)
            if array.dtype.kind == "T":
                raise NotStorable(f"{name!r} is text of any length; make it 'U'", key=name)

    def _widen(self, row: Mapping[str, NDArray[Any] | None]) -> None:
        """Give the table the columns and types that this trial needs, if they are not there."""
        wanted = dict(self._columns)
        for name in dict.fromkeys([*self._columns, *row]):
            value = row.get(name)
            if name != SUMS and not (name in wanted and accepts(wanted[name], value)):
                wanted[name] = self._common(name, value)
        if wanted != self._columns:
            plain = {name: kind for name, kind in wanted.items() if name != SUMS}
            self._rebuild(plain if plain and self._arrays is None else {**plain, SUMS: TEXT})

    def _common(self, name: str, value: NDArray[Any] | None) -> np.dtype[Any]:
        """Choose the type that holds the column so far, and one more value."""
        if not self._table.rows:
            return TEXT if value is None else value.dtype
        known = TextFile(self._path).read(name) if name in self._columns else None
        return common(known, value)

    def _rebuild(self, wanted: dict[str, np.dtype[Any]]) -> None:
        """Write the table anew with other columns, and put it into the place of the old one."""
        count, before = self._table.rows, self._columns
        file = TextFile(self._path)
        whole = {
            name: as_type(file.read(name) if name in before else None, count, kind)
            for name, kind in wanted.items()
        }
        sidecar.discard(self._path + MEND)
        self._columns, made = wanted, None
        try:
            made = TextAppender(
                self._path + MEND, self.key, self._spec(), lambda: None, durable=self._durable
            )
            if count:
                made.extend(whole)
            made.flush()
            made.leave()
            os.replace(self._path + MEND, self._path)  # noqa: PTH105
        except BaseException:
            self._columns = before
            if made is not None:
                made.abandon()
            with contextlib.suppress(OSError):  # (the next attempt does)
                sidecar.discard(self._path + MEND)
            raise
        self._table.leave()
        self._behind = True
        self._go_on()

    def _write(self, row: Mapping[str, NDArray[Any] | None], arrays: Mapping[str, NDArray[Any]]) -> int:
        number, sums = self._table.rows, dict[str, Any]()
        try:
            for name, array in arrays.items():
                sums[name] = None
                sums[name] = self._arrays.put(name, number, array)
            given = {**row, SUMS: np.array([json.dumps(sums)], TEXT)}
            self._table.extend(
                {name: as_type(given.get(name), 1, kind) for name, kind in self._columns.items()}
            )
            self._table.flush()
        except BaseException:
            self._forget()
            if self._arrays is not None:
                self._arrays.drop(sums, number)
            raise
        return number

    def _forget(self) -> None:
        try:
            self._table.forget()
        except OSError:  # it can't even be read now: it is opened anew when it is needed
            self._table.leave()
            self._behind = True

    def flush(self) -> None:
        """Nothing: each trial is durable when `write` returns."""

    def close(self, meta: Mapping[str, Any]) -> None:
        """Let go of the task, with attributes of the whole; it can be gone on with later."""
        if not self._table.mine:
            return
        with self._lock:
            if self.closed:
                return
            with self._explained("the end"):
                self._catch_up()
                self._table.close(meta)
                self._let_go()
            self.closed = True
            self._release()

    def abandon(self) -> None:
        """End the task with its whole trials."""
        if not self._table.mine:
            return
        with self._lock:
            if not self.closed:
                self.closed = True
                if not self._behind:
                    self._table.abandon()
                self._let_go()
                self._release()

    def _let_go(self) -> None:
        if self._arrays is not None:
            self._arrays.close()
