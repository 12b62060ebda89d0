"""The folder of an experiment: participants, and the tasks that each of them has begun."""

from __future__ import annotations

import os
from pathlib import Path

from datastore_lab import media
from datastore_lab.errors import AlreadyExists, BadKey, EngineError, NotFound, UnknownTask
from datastore_lab.experiment.archive import storage_to_zip
from datastore_lab.experiment.files import makedirs
from datastore_lab.experiment.tasks import TaskReader, TaskWriter, open_trials


class StorageWriter:
    """Keeps what participants do, in folders that people and other programs can read.

    ``root/<participant>/<task>/trials.csv`` has a row per trial, ``<array>.hdf5`` beside it a dataset per
    trial.

    Parameters
    ----------
    root : path-like, default ``"data"``
        Made if it is not there.
    allow_overwrite : bool, default False
        Let `create_task` begin a task anew that is there already, which deletes its trials.

    Examples
    --------
    >>> import tempfile
    >>> from datastore_lab.experiment import Design
    >>> folder = tempfile.TemporaryDirectory()
    >>> storage = StorageWriter(folder.name)
    >>> storage.subject_id = "p1"
    >>> trial = Design().add_block().add_trial({"hand": "left"})
    >>> emg = trial.add_array("emg", [[1.0, 2.0]])
    >>> with storage.create_task("reach") as task:
    ...     task.write(trial)
    0
    >>> storage.task_ids, storage.require_task("reach").array("emg").tolist()
    (['reach'], [[1.0, 2.0]])
    >>> storage.close(); folder.cleanup()
    """

    def __init__(self, root: str | os.PathLike[str] = "data", allow_overwrite: bool = False) -> None:
        self.root = Path(root)
        self.allow_overwrite = allow_overwrite
        makedirs(self.root, exist_ok=True)
        self._store = open_trials(self.root, "a")
        self._subject_id: str | None = None

    @property
    def subject_ids(self) -> list[str]:
        """Participants, in alphabetical order."""
        return _folders(self.root)

    @property
    def subject_id(self) -> str | None:
        """The participant at hand; None before one was chosen.

        Setting it makes the folder of a new participant.

        Raises
        ------
        BadKey
            If it is no name of a folder, such as ``"../p1"``.
        """
        return self._subject_id

    @subject_id.setter
    def subject_id(self, subject_id: str) -> None:
        makedirs(self.root / _folder(subject_id, "a participant"), exist_ok=True)
        self._subject_id = subject_id

    @property
    def task_ids(self) -> list[str]:
        """Tasks that the participant at hand has begun, in alphabetical order."""
        if self._subject_id is None:
            return []
        folder = self.root / _folder(self._subject_id, "a participant")
        return [name for name in _folders(folder) if (self._subject_id, name) in self._store]

    def create_task(self, task_id: str) -> TaskWriter:
        """Begin a task of the participant at hand.

        Raises
        ------
        AlreadyExists
            If it is there, unless `allow_overwrite` was given: then its trials are deleted. Use `resume_task`
            to go on with it.
        BadKey
            If it is no name of a folder, or no participant was chosen.
        Locked
            If another process is writing it.
        """
        key = self._key(task_id)
        if key in self._store:
            if not self.allow_overwrite:
                raise AlreadyExists(
                    f"participant {key[0]!r} has begun the task {task_id!r} already; use resume_task() to go "
                    "on with it, another name, or allow_overwrite=True to delete its trials",
                    key=task_id,
                )
            engine = self._store.engine
            engine.drop_task(key)  # type: ignore[attr-defined]
        return TaskWriter._of(self._store, key)

    def resume_task(self, task_id: str) -> TaskWriter:
        """Go on with a task that was interrupted, after its last whole trial.

        Raises
        ------
        UnknownTask
            If the participant has not begun it.
        Locked, Foreign
            If another process is writing it, or another program has made it.
        """
        return TaskWriter._of(self._store, self._known(task_id))

    def require_task(self, task_id: str) -> TaskReader:
        """Read a task of the participant at hand.

        Raises
        ------
        UnknownTask
            If the participant has not begun it.
        """
        return TaskReader._of(self._store, self._known(task_id))

    def to_zip(self, outfile: str | os.PathLike[str]) -> str | os.PathLike[str]:
        """Pack everything into a ZIP archive; see `storage_to_zip`."""
        storage_to_zip(self.root, Path(outfile))
        return outfile

    def close(self) -> None:
        """End the tasks that are being written, and let go of the folder; may be called twice."""
        self._store.close()

    def __enter__(self) -> StorageWriter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _known(self, task_id: str) -> tuple[str, str]:
        key = self._key(task_id)
        try:
            self._store.stat(key)
        except NotFound as error:
            known = ", ".join(map(repr, self.task_ids)) or "none"
            raise UnknownTask(
                f"participant {key[0]!r} has not begun a task {task_id!r} in {str(self.root)!r} (there are: "
                f"{known})",
                key=task_id,
            ) from error
        return key

    def _key(self, task_id: str) -> tuple[str, str]:
        if self._subject_id is None:
            raise BadKey("no participant was chosen: set subject_id first", key=task_id)
        _folder(task_id, "a task")
        return self._subject_id, task_id


Storage = StorageWriter


def _folder(name: str, what: str) -> str:
    """Give the name of the folder of a participant or task.

    Raises
    ------
    BadKey
    """
    if not isinstance(name, str):
        raise BadKey(f"{what} is named by text, not by {type(name).__name__}: use {str(name)!r}", key=name)
    if not name.strip() or set(name) & {"/", "\\"} or name.startswith(".") or not name.isprintable():
        raise BadKey(
            f"{name!r} can't be the name of {what}: it becomes that of a folder, so that it has no slashes, "
            "no dot at its beginning, and something to be seen",
            key=name,
        )
    folder = media.escape_file(name)
    if "%~" in folder:
        raise BadKey(f"{name[:40]!r}... is too long for the name of {what}: a folder has 200 bytes", key=name)
    return folder


def _folders(place: Path) -> list[str]:
    try:
        found = [entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError as error:
        raise EngineError(f"the folder {str(place)!r} is gone", key=str(place)) from error
    return sorted(media.unescape_file(name) or name for name in found if not name.startswith("."))
