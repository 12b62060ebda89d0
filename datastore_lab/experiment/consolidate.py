"""An experiment as one working dataset: participants, tasks and trials as a labelled tree in a store.

The record of a task holds its attributes as columns and each array that all trials have in one shape, along
the dimension ``trial``. An array that is ragged, or that some trials lack, stays apart: one record per trial
below the task.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes, media, objects
from datastore_lab.errors import AlreadyExists, NotFound
from datastore_lab.experiment.tasks import ROWS, open_trials
from datastore_lab.keys import show
from datastore_lab.records import RESERVED, ArrayInfo, Record, Stat, default_dims
from datastore_lab.store import Store, open_store
from datastore_lab.store.moving.report import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.experiment.archive import Place
    from datastore_lab.keys import Key
    from datastore_lab.store.moving.report import Watch

SOURCE = "lab_source"
"""Attribute of a task: from what it was made, so that it is passed over as long as that is the same."""

TRIAL = "trial"
_KIND = "stream"
_WHOLE = 256 << 20
_BLOCK = 32 << 20
_WAITING = "lab_consolidating"
"""Where a record lies until the one that replaces it is written, within one commit."""


def storage_to_hdf5(path: Place, outfile: Place | None = None, *, progress: Watch | None = None) -> Place:
    """Bring an experiment into one HDF5 file, in which analysis can be saved beside it.

    Opened with `open_store`, ``store["p1/reach"]`` is a dataset of xarray: the attributes of the trials, and
    the arrays that all trials have in one shape, along the dimension ``trial``. Other arrays lie below it,
    one per trial: ``store["p1/reach/emg/0"]``. Done again, only tasks with new trials are read and written;
    what else is in the file stays. All of that happens, or nothing.

    Parameters
    ----------
    path : path-like
        The folder of the experiment.
    outfile : path-like, optional
        Made if it is not there; ``<folder>.hdf5`` beside the folder if not given.
    progress : callable, optional
        Called with a `Progress` again and again.

    Returns
    -------
    path-like
        The file.

    Raises
    ------
    NotFound
        If there is no such folder.
    AlreadyExists
        If something of another origin is at the place of a task.
    Corrupt
        If a trial is not as it was written.
    Locked, EngineError
        If the file is in use, or the disk fails.

    Examples
    --------
    >>> import tempfile
    >>> from datastore_lab.experiment import StorageWriter, Trial
    >>> folder = tempfile.TemporaryDirectory()
    >>> with StorageWriter(f"{folder.name}/study") as storage:
    ...     storage.subject_id = "p1"
    ...     task = storage.create_task("reach")
    ...     for hand in ("left", "right"):
    ...         trial = Trial({"hand": hand})
    ...         emg = trial.add_array("emg", [[1.0, 2.0, 3.0]])
    ...         number = task.write(trial)
    >>> with open_store(storage_to_hdf5(f"{folder.name}/study")) as store:
    ...     store["p1/reach/mean"] = store["p1/reach"]["emg"].mean("trial").values
    ...     dict(store["p1/reach"].sizes), list(store)
    ({'trial': 2, 'emg_1': 1, 'emg_2': 3}, ['p1/reach', 'p1/reach/mean'])
    >>> folder.cleanup()
    """
    return _consolidate(path, outfile, ".hdf5", progress)


def storage_to_zarr(path: Place, outfile: Place | None = None, *, progress: Watch | None = None) -> Place:
    """Bring an experiment into one folder of Zarr; see `storage_to_hdf5`."""
    return _consolidate(path, outfile, ".zarr", progress)


def _consolidate(path: Place, outfile: Place | None, suffix: str, progress: Watch | None) -> Place:
    root = Path(os.path.abspath(path))  # noqa: PTH100 (no link is followed)
    if not root.is_dir():
        raise NotFound(f"there is no folder {str(path)!r}", key=str(path))
    beside = root.with_name(f"{root.name}{suffix}")
    target = beside if outfile is None else Path(os.path.abspath(outfile))  # noqa: PTH100
    with open_trials(root, "r") as source:
        if target.exists():
            with open_store(target, "r+") as store:
                _fill(source, store, progress)
        else:
            _make(source, target, progress)
    if outfile is not None:
        return outfile
    return str(beside) if isinstance(path, str) else beside  # type: ignore[return-value]


def _make(source: Store, target: Path, progress: Watch | None) -> None:
    """Write a new store, which gets its name when it is complete."""
    part = target.with_name(f".{target.stem}-part{target.suffix}")
    with open_store(part, "w") as store:
        _fill(source, store, progress)
    part.replace(target)
    media.sync_folder(target.parent)


class _Task(NamedTuple):
    """A task as it is in the folders.

    Attributes
    ----------
    key : Key
    columns : mapping of str to ndarray
    meta : mapping
    rows : int
    made_of : str
        Another text whenever the trials so far are others.
    together : mapping of str to ArrayInfo
        Arrays of one shape, as they are in each trial.
    apart : mapping of str to list of str
        Trials that have an array of the others.
    """

    key: Key
    columns: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    rows: int
    made_of: str
    together: dict[str, ArrayInfo]
    apart: dict[str, list[str]]

    @property
    def nbytes(self) -> int:
        """Size of the record, in bytes."""
        return self.rows * sum(info.nbytes for info in self.together.values())

    def source(self) -> dict[str, Any]:
        """Give what is noted of the origin."""
        return {"made_of": self.made_of, "trials": self.rows, "apart": sorted(self.apart)}


def _fill(source: Store, store: Store, progress: Watch | None) -> None:
    """Bring every task that is new, or has new trials, into a store, in one commit."""
    engine: Any = source.engine
    keys, total = engine.tasks(), 0
    with store.transaction():
        for number, key in enumerate(keys):
            total += _bring(source, store, key)
            if progress is not None:
                progress(Progress("consolidating", number + 1, len(keys), total, total))


def _bring(source: Store, store: Store, key: Key) -> int:
    noted = _noted(store, key)
    stat, origin = source.stat(key), _origin(source, key)
    rows = next((info.shape[0] for info in stat.arrays.values()), 0)
    if noted is not None and (noted["made_of"], noted["trials"]) == (origin, rows):
        return 0
    task = _task(source, key, origin)
    _drop_stale(store, task, noted)
    meta = {**_own(store, key), **task.meta, SOURCE: task.source()}
    if task.nbytes <= _WHOLE:
        arrays = {name: _stacked(source, task, name, range(task.rows)) for name in task.together}
        store.write(key, Record(_KIND, {**task.columns, **arrays}, meta, _dims(task)))
    else:
        _write_large(source, store, task, meta)
    return task.nbytes + _write_apart(source, store, task)


def _noted(store: Store, key: Key) -> dict[str, Any] | None:
    """Give what a task in the store was made of; None if there is none.

    Raises
    ------
    AlreadyExists
        If there is a record of another origin.
    """
    if key not in store:
        return None
    stat = store.stat(key)
    found = stat.meta.get(SOURCE)
    if found is None and stat.arrays:
        raise AlreadyExists(
            f"{show(key)!r} in {store.url} was not made of the folders of an experiment; move it to another "
            "name, or choose another file",
            key=key,
        )
    return found


def _own(store: Store, key: Key) -> dict[str, Any]:
    """Give the attributes that somebody has put on a task since."""
    return store.attrs(key) if key in store else {}


def _origin(source: Store, key: Key) -> str:
    """Say which task it is; of one of another program also which files it has, as nothing numbers it."""
    engine: Any = source.engine
    return " ".join([engine.fingerprint(key), *engine.foreign_files(key)])


def _task(source: Store, key: Key, origin: str) -> _Task:
    record = source.record(key)
    columns = {name: values for name, values in record.arrays.items() if name != ROWS}
    rows = len(next(iter(record.arrays.values()), ()))
    meta = {name: value for name, value in record.meta.items() if not name.startswith(RESERVED)}
    together, apart = {}, {}
    engine: Any = source.engine
    for name, infos in sorted(engine.arrays_of(key).items()):
        if len(infos) == rows and len({(info.dtype, info.shape) for info in infos.values()}) == 1:
            together[name] = next(iter(infos.values()))
        else:
            apart[name] = list(infos)
    return _Task(key, columns, meta, rows, origin, together, apart)


def _dims(task: _Task) -> dict[str, tuple[str, ...]]:
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(task.columns, (TRIAL,))
    stacked = {
        name: (TRIAL, *default_dims(name, 1 + len(info.shape))[1:]) for name, info in task.together.items()
    }
    return {**dims, **stacked}


def _stacked(source: Store, task: _Task, name: str, trials: range) -> NDArray[Any]:
    """Read an array of some trials as one."""
    info = task.together[name]
    made = np.empty((len(trials), *info.shape), dtypes.parse(info.dtype))
    for at, number in enumerate(trials):
        made[at] = source.engine.read((*task.key, name, str(number)), "data")
    return made


def _write_large(source: Store, store: Store, task: _Task, meta: dict[str, Any]) -> None:
    """Write a task in blocks of trials; what lies below the record that it replaces stays."""
    aside = (*task.key[:-1], _WAITING)
    if task.key in store:
        store.move(task.key, aside)
    dims = _dims(task)
    shapes = dict.fromkeys(task.columns, ()) | {name: info.shape for name, info in task.together.items()}
    kinds = {name: dtypes.name(values.dtype) for name, values in task.columns.items()}
    kinds |= {name: info.dtype for name, info in task.together.items()}
    infos = {name: ArrayInfo(kinds[name], (0, *shape), dims[name], 0, None) for name, shape in shapes.items()}
    appender = store.append(task.key, Stat(_KIND, infos, meta))
    for trials in _blocks(task):
        columns = {name: values[trials.start : trials.stop] for name, values in task.columns.items()}
        appender.extend({**columns, **{name: _stacked(source, task, name, trials) for name in task.together}})
        appender.flush()
    appender.close({})
    if aside in store:
        for name in list(store.children(aside)):
            store.move((*aside, name), (*task.key, name))
        store.delete(aside)


def _blocks(task: _Task) -> Iterator[range]:
    step = max(1, _BLOCK // max(1, task.nbytes // task.rows))
    for start in range(0, task.rows, step):
        yield range(start, min(task.rows, start + step))


def _drop_stale(store: Store, task: _Task, noted: dict[str, Any] | None) -> None:
    """Delete what lies apart and is to be in the record now, or is of other trials."""
    if noted is None:
        return
    same = noted["made_of"] == task.made_of
    for name in noted["apart"]:
        if (*task.key, name) in store and not (same and name in task.apart):
            store.delete((*task.key, name))


def _write_apart(source: Store, store: Store, task: _Task) -> int:
    """Write the arrays that stay per trial, as far as they are not there."""
    total = 0
    for name, trials in task.apart.items():
        for trial in trials:
            place = (*task.key, name, trial)
            if place in store:
                continue
            array = source.engine.read(place, "data")
            store.write(place, objects.encode(array))
            total += array.nbytes
    return total
