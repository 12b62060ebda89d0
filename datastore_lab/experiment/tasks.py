"""What a participant did in a task: written trial by trial, read as a table and as arrays."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import media
from datastore_lab.errors import Foreign, NotFound, NotStorable
from datastore_lab.keys import show
from datastore_lab.registry import ENGINES
from datastore_lab.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from datastore_lab.experiment.design import Trial
    from datastore_lab.keys import Key

ROWS = "lab_arrays"
"""Column of the table that says which arrays a trial has; it is shown to nobody here."""


class TaskWriter:
    """Adds trials to a task; each is there completely, attributes and arrays, or not at all.

    Usually from `StorageWriter.create_task`. A task that was interrupted goes on after its last whole trial.

    Parameters
    ----------
    root : path-like
        The folder of the task, ``<root of the experiment>/<participant>/<task>``; made if it is not there.

    Attributes
    ----------
    key : Key
        Participant and task.

    Raises
    ------
    Locked
        If another process is writing this task.
    Foreign
        If its table was made by another program.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        experiment, key = _divided(root)
        experiment.mkdir(parents=True, exist_ok=True)
        self._begin(open_trials(experiment, "a"), key)

    @classmethod
    def _of(cls, store: Store, key: Key) -> TaskWriter:
        made = cls.__new__(cls)
        made._begin(store, key)
        return made

    def _begin(self, store: Store, key: Key) -> None:
        self.key = key
        self._store: Store | None = store  # (so that the folder stays open)
        engine: Any = store.engine
        self._task = engine.task(key, arrays="hdf5")
        self._finish: Any = weakref.finalize(self, self._task.close, {})

    def __len__(self) -> int:
        """Count the trials."""
        return len(self._task)

    def write(self, trial: Trial) -> int:
        """Add a trial, and give its number.

        Its attributes become a row of ``trials.csv``; each array a dataset of ``<array>.hdf5``, named by that
        number. Earlier trials lack an attribute that is new. Arrays that are still empty are left out.

        Raises
        ------
        NotStorable, BadKey, AlreadyExists
            If something in it can't be stored; nothing was written.
        EngineError
            If the disk fails; the trial is not there, those before are.
        """
        arrays = {name: array.data for name, array in trial.arrays.items() if array.data is not None}
        return int(self._task.write(trial.attrs, arrays))

    def close(self) -> None:
        """Let go of the task; may be called twice. It can be gone on with later."""
        self._finish()
        self._store = None

    def __enter__(self) -> TaskWriter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class TaskReader:
    """Reads what a participant did in a task, also while it is still being written.

    Parameters
    ----------
    root : path-like
        The folder of the task.

    Attributes
    ----------
    key : Key
        Participant and task.

    Raises
    ------
    NotFound
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        experiment, key = _divided(root)
        self._begin(open_trials(experiment, "r"), key)

    @classmethod
    def _of(cls, store: Store, key: Key) -> TaskReader:
        made = cls.__new__(cls)
        made._begin(store, key)
        return made

    def _begin(self, store: Store, key: Key) -> None:
        store.stat(key)
        self.key, self._store = key, store

    @property
    def trials(self) -> pd.DataFrame:
        """The attributes of all trials, a row each."""
        import pandas as pd

        columns = self._store.record(self.key).arrays
        given = {name: values for name, values in columns.items() if name != ROWS}
        rows = len(next(iter(columns.values()))) if columns else 0
        return pd.DataFrame({name: _column(values) for name, values in given.items()}, index=range(rows))

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that any trial has."""
        return list(self._store.children(self.key))

    def numbers(self, name: str) -> list[int]:
        """Give the numbers of the trials that have an array, in order.

        Raises
        ------
        NotFound
            If no trial has one of this name.
        """
        return [int(trial) for trial in self._numbered(name)]

    def _numbered(self, name: str) -> list[str]:
        try:
            return list(self._store.children((*self.key, name)))
        except NotFound as error:
            known = ", ".join(map(repr, self.arrays)) or "none"
            raise NotFound(
                f"no trial of {show(self.key)!r} has an array {name!r} (there are: {known})", key=name
            ) from error

    def iterarray(self, name: str) -> Iterator[NDArray[Any]]:
        """Give an array of one trial after the other, of those that have it; no two are in memory at once.

        Raises
        ------
        NotFound
            If no trial has one of this name.
        """
        return self._read(name, self._numbered(name))

    def _read(self, name: str, trials: list[str]) -> Iterator[NDArray[Any]]:
        for trial in trials:
            yield self._store.engine.read(self._place(name, trial), "data")

    def _place(self, name: str, trial: str) -> Key:
        return (*self._store.prefix, *self.key, name, trial)

    def array(self, name: str) -> NDArray[Any]:
        """Read an array of all trials, joined along the first axis; rows (1-D arrays) become rows of a table.

        Memory is taken once for the result, and for one trial besides.

        Raises
        ------
        NotFound
            If no trial has one of this name.
        NotStorable
            If their shapes differ in other axes than the first: use `iterarray`.
        """
        import numpy as np

        trials = self._numbered(name)
        infos = [self._store.engine.stat(self._place(name, trial)).arrays["data"] for trial in trials]
        shapes = [info.shape if len(info.shape) > 1 else (1, *(info.shape or (1,))) for info in infos]
        odd = next((n for n, shape in enumerate(shapes) if shape[1:] != shapes[0][1:]), None)
        if odd is not None:
            raise NotStorable(
                f"{name!r} of trial {trials[odd]} of {show(self.key)!r} has the shape {infos[odd].shape}, "
                f"that of trial {trials[0]} {infos[0].shape}: they can't be joined; use iterarray({name!r})",
                key=name,
            )
        kinds = [np.dtype(one) for one in {info.dtype for info in infos}]
        made = np.empty((sum(shape[0] for shape in shapes), *shapes[0][1:]), np.result_type(*kinds))
        filled = 0
        for shape, part in zip(shapes, self._read(name, trials), strict=True):
            made[filled : filled + shape[0]] = part.reshape(shape)
            filled += shape[0]
        return made


class TrialWriter:
    """Adds rows of attributes to a table of text.

    Parameters
    ----------
    filepath : path-like
        The CSV file. One that an earlier `TrialWriter` began is gone on with.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = TrialWriter(pathlib.Path(folder) / "trials.csv")
    ...     writer.write({"subject": "007", "block": 0})
    ...     writer.write({"subject": "008", "block": 0, "score": 1.5})
    ...     print(writer.data["subject"], writer.data["score"])
    ...     writer.close()
    0
    1
    ['007', '008'] [nan, 1.5]
    """

    def __init__(self, filepath: str | os.PathLike[str]) -> None:
        self.filepath = Path(filepath)
        self._table = ENGINES.load("trials").table(self.filepath)
        self._finish: Any = weakref.finalize(self, self._table.close, {})

    def write(self, data: Mapping[str, Any]) -> int:
        """Add a row, and give its number; errors are those of `TaskWriter.write`."""
        return int(self._table.write(data))

    @property
    def data(self) -> dict[str, list[Any]]:
        """All columns as they are in the file."""
        found: dict[str, list[Any]] = self._table.columns()
        return found

    def close(self) -> None:
        """Let go of the table; may be called twice."""
        self._finish()


def open_trials(root: Path, mode: str) -> Store:
    """Open the folder of an experiment, however it is called."""
    return open_store(f"trials://{Path(os.path.abspath(root))}", mode)  # noqa: PTH100 (no link is followed)


def _divided(root: str | os.PathLike[str]) -> tuple[Path, Key]:
    place = Path(os.path.abspath(root))  # noqa: PTH100 (no link is followed)
    if len(place.parts) < 3:
        raise Foreign(f"{str(place)!r} is no task: it lies in no folder of a participant", key=root)
    names = place.parent.name, place.name
    return place.parent.parent, tuple(media.unescape_file(name) or name for name in names)


def _column(values: NDArray[Any]) -> Any:
    """Give text as objects of Python, which pandas takes for text."""
    return values.astype(object) if values.dtype.kind == "T" else values
