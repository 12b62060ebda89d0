"""The workspace: a two-level view of a store, with notes."""

from __future__ import annotations

import datetime as dt
import os
import uuid
import warnings
from typing import TYPE_CHECKING, Any, TypedDict

from datastore_lab.errors import BadKey, NotFound
from datastore_lab.keys import check, show
from datastore_lab.records import GROUP, Stat
from datastore_lab.store import Store, open_store
from datastore_lab.workspace import files

if TYPE_CHECKING:
    import xarray

_NOTE, _CREATED, _TYPE, _SHAPE, _DTYPE = "note", "created_at", "type", "shape", "dtype"


class Info(TypedDict):
    """What is known of an item without loading it."""

    type: str
    shape: tuple[int, ...] | None
    dtype: str | None
    created_at: str | None
    note: str | None


class Merged(TypedDict):
    """What `AnalysisWorkspace.merge_from` did."""

    merged: int
    skipped: int
    skipped_keys: list[tuple[str, str]]


class AnalysisWorkspace:
    """Analysis results by namespace and key, with notes.

    Namespaces usually are the experimental conditions, keys the names of the results. Any text is allowed
    for both. The workspace is a view of a `Store` and keeps nothing beside it.

    Parameters
    ----------
    name : str, optional
        A name for people; an existing workspace keeps its own unless one is given.
    store : Store, str or path, optional
        Where the items live: a store, a view of one (``store.group("ws")``), or the address of one. By
        default in the memory of this process.

    Attributes
    ----------
    backing : Store
        The store underneath.

    Examples
    --------
    >>> import numpy as np
    >>> ws = AnalysisWorkspace(name="my_experiment")
    >>> ws.store("D0", "sttc", np.eye(3), note="STTC, delt=20 ms")
    >>> ws.get("D0", "sttc").shape
    (3, 3)
    >>> ws.get_info("D0", "sttc")["type"], ws.list_keys()
    ('ndarray', {'D0': ['sttc']})
    """

    def __init__(self, name: str | None = None, store: Store | str | os.PathLike[str] | None = None) -> None:
        given = store if isinstance(store, Store) else open_store("memory://" if store is None else store)
        self.backing = given
        kept = given.attrs() if () in given else {}
        self._header = {
            "workspace_id": str(kept.get("workspace_id") or uuid.uuid4()),
            "name": name if name is not None else kept.get("name"),
            _CREATED: str(kept.get(_CREATED) or _now()),
        }
        if given.writable and () in given and any(kept.get(key) != self._header[key] for key in self._header):
            given.update((), self._header)

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def workspace_id(self) -> str:
        """A name for programs: unique, and kept when the workspace is saved and loaded."""
        return str(self._header["workspace_id"])

    @property
    def name(self) -> str | None:
        """The name for people."""
        return self._header["name"]

    @property
    def created_at(self) -> str:
        """When the workspace was made: ISO 8601, UTC."""
        return str(self._header[_CREATED])

    def __repr__(self) -> str:
        label = self.name or self.workspace_id
        return f"<{type(self).__name__} {label!r}: {len(self)} items in {self.list_namespaces()}>"

    def __len__(self) -> int:
        return sum(len(names) for names in self._all_keys().values())

    def __contains__(self, address: object) -> bool:
        return isinstance(address, tuple) and len(address) == 2 and self.get_info(*address) is not None

    # -- items --------------------------------------------------------------------------------------

    def store(self, namespace: str, key: str, obj: Any, note: str | None = None) -> None:
        """Keep an object; what was under the same name is replaced.

        Parameters
        ----------
        namespace, key : str
        obj : object
            Whatever a `Store` takes.
        note : str, optional
            Free text that is listed with the item.

        Raises
        ------
        NotStorable
            Naming the path inside the object; what was stored before stays.
        """
        address = self._address(namespace, key)
        with self.backing.transaction():
            self.backing.put(address, obj, attrs=_describe(obj, note))
            if self.backing.attrs().get("workspace_id") != self.workspace_id:
                self.backing.update((), self._header)

    def get(self, namespace: str, key: str, *, lazy: bool = False) -> Any:
        """Give an object of its own, equal to the one that was stored; None if there is none.

        Parameters
        ----------
        namespace, key : str
        lazy : bool, default False
            Give an xarray view that reads when values are asked for.
        """
        address = self._address(namespace, key)
        if self.get_info(namespace, key) is None:
            return None
        return self.lazy(namespace, key) if lazy else self.backing[address]

    def lazy(self, namespace: str, key: str) -> xarray.Dataset | xarray.DataArray:
        """Open an item as xarray; `NotFound` if there is none."""
        return self.backing.lazy(self._address(namespace, key))

    def get_info(self, namespace: str, key: str) -> Info | None:
        """Describe an item without loading it; None if there is none."""
        try:
            stat = self.backing.stat(self._address(namespace, key))
        except NotFound:
            return None
        return None if stat.kind == GROUP else _info(stat)

    def describe(self) -> dict[str, dict[str, Info]]:
        """Describe every item, by namespace and key, without loading any."""
        described = {}
        for namespace, names in self._all_keys().items():
            infos = {key: self.get_info(namespace, key) for key in names}
            described[namespace] = {key: info for key, info in infos.items() if info is not None}
        return described

    def list_namespaces(self) -> list[str]:
        """List the namespaces, in the order in which they were first used where the engine keeps it."""
        return list(self._all_keys())

    def list_keys(self, namespace: str | None = None) -> Any:
        """List the keys of one namespace (empty if it is unknown), or of all as a dictionary of lists."""
        return self._all_keys() if namespace is None else self._keys_of(namespace)

    def add_note(self, namespace: str, key: str, note: str) -> None:
        """Add or replace the note of an item; `NotFound` if there is none."""
        self._must_have(namespace, key)
        self.backing.update(self._address(namespace, key), {_NOTE: note})

    def rename(self, namespace: str, old: str, new: str, overwrite: bool = False) -> bool:
        """Give an item another key.

        Returns
        -------
        bool
            False, with a `UserWarning`, if `new` is taken and `overwrite` is false.

        Raises
        ------
        NotFound
            A `KeyError`, if there is no item under the old key.
        """
        self._must_have(namespace, old)
        source, target = self._address(namespace, old), self._address(namespace, new)
        if source == target:
            return True
        taken = self.get_info(namespace, new) is not None
        if taken and not overwrite:
            warnings.warn(
                f"{namespace!r} has an item {new!r} already; pass overwrite=True to replace it",
                UserWarning,
                stacklevel=2,
            )
            return False
        with self.backing.transaction():
            if taken:
                self.backing.delete(target)
            self.backing.move(source, target)
        return True

    def delete(self, namespace: str, key: str | None = None) -> None:
        """Delete an item, or a whole namespace; the last item takes its namespace along.

        Raises
        ------
        NotFound
            A `KeyError`, if there is none.
        """
        if key is None:
            if not self._keys_of(namespace):
                raise NotFound(f"there is no namespace {namespace!r}; there are {self.list_namespaces()}")
            self.backing.delete((namespace,))
            return
        self._must_have(namespace, key)
        with self.backing.transaction():
            self.backing.delete(self._address(namespace, key))
            if not self._keys_of(namespace):
                self.backing.delete((namespace,))

    def merge_from(self, other: AnalysisWorkspace, overwrite: bool = False) -> Merged:
        """Copy the items of another workspace, in one commit.

        Parameters
        ----------
        other : AnalysisWorkspace
            May lie on another engine.
        overwrite : bool, default False
            Replace items that are here too, instead of skipping them.
        """
        merged, skipped = 0, []
        with self.backing.transaction():
            for namespace, names in other._all_keys().items():
                for key in names:
                    if not overwrite and self.get_info(namespace, key) is not None:
                        skipped.append((namespace, key))
                        continue
                    self.backing.write((namespace, key), other.backing.record((namespace, key)))
                    merged += 1
        return {"merged": merged, "skipped": len(skipped), "skipped_keys": skipped}

    @staticmethod
    def comparison_namespace(*names: str) -> str:
        """Name the namespace of a comparison between others.

        Examples
        --------
        >>> AnalysisWorkspace.comparison_namespace("a", "b")
        'C_a_b'
        """
        if not names:
            raise ValueError("a comparison needs at least one name")
        return "_".join(("C", *names))

    # -- files --------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to ``<path>.h5``, and ``<path>.json`` beside it for people.

        Both files appear complete or not at all; what was there before stays until then.

        Raises
        ------
        EngineError
            An `OSError`, if the folder is missing or can't be written.
        """
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AnalysisWorkspace:
        """Open what `save` wrote, into memory; a file of more than 1 GB is left on disk and read lazily.

        Changes are not written back to the file before the next `save`.

        Raises
        ------
        EngineError, Corrupt
            An `OSError`, if the file is missing or damaged.
        Foreign
            A `ValueError`, if the file is not one of a workspace.
        """
        return files.load(cls, path)

    @classmethod
    def load_item(cls, path: str | os.PathLike[str], namespace: str, key: str) -> Any:
        """Load one item of a saved workspace without reading the others; None if there is none."""
        with files.saved_store(path) as store:
            return AnalysisWorkspace(store=store).get(namespace, key)

    def close(self) -> None:
        """Release the store underneath; may be called twice."""
        self.backing.close()

    def __enter__(self) -> AnalysisWorkspace:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def adopt(self, header: dict[str, Any]) -> None:
        """Take over the identity of another workspace: id, name and time of creation."""
        self._header = {key: header.get(key, self._header[key]) for key in self._header}
        self.backing.update((), self._header)

    # -- inside ---------------------------------------------------------------------------------------

    @staticmethod
    def _address(namespace: str, key: str) -> tuple[str, str]:
        if not isinstance(namespace, str) or not isinstance(key, str):
            raise BadKey(f"namespace and key are text, not {(namespace, key)!r}", key=(namespace, key))
        checked = check((namespace, key))
        return checked[0], checked[1]

    def _all_keys(self) -> dict[str, list[str]]:
        if () not in self.backing:
            return {}
        found = {namespace: self._keys_of(namespace) for namespace in self.backing.children()}
        return {namespace: names for namespace, names in found.items() if names}

    def _keys_of(self, namespace: str) -> list[str]:
        try:
            names = list(self.backing.children((namespace,)))
            return [name for name in names if self.backing.stat((namespace, name)).kind != GROUP]
        except NotFound:
            return []

    def _must_have(self, namespace: str, key: str) -> None:
        if self.get_info(namespace, key) is None:
            raise NotFound(
                f"there is no item {show((namespace, key))!r} in this workspace; "
                f"{namespace!r} has {self._keys_of(namespace)}",
                key=(namespace, key),
            )


def _describe(obj: Any, note: str | None) -> dict[str, Any]:
    """Say of an object what listings show, so that they need not load it."""
    shape, dtype = getattr(obj, "shape", None), getattr(obj, "dtype", None)
    sized = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
    return {
        _TYPE: type(obj).__name__,
        _SHAPE: list(shape) if sized and shape is not None else None,
        _DTYPE: None if dtype is None or callable(dtype) else str(dtype),
        _CREATED: _now(),
        _NOTE: note,
    }


def _info(stat: Stat) -> Info:
    """Read the description back; an item that something else wrote is described by its record."""
    shape, dtype = stat.meta.get(_SHAPE), stat.meta.get(_DTYPE)
    if _TYPE not in stat.meta and len(stat.arrays) == 1:
        only = next(iter(stat.arrays.values()))
        shape, dtype = only.shape, only.dtype
    return {
        "type": str(stat.meta.get(_TYPE, stat.kind)),
        "shape": None if shape is None else tuple(shape),
        "dtype": dtype,
        "created_at": stat.meta.get(_CREATED),
        "note": stat.meta.get(_NOTE),
    }


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
