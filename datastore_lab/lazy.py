"""Stored records as xarray objects that read nothing before values are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core.indexing import (
    ExplicitIndexer,
    IndexingSupport,
    LazilyIndexedArray,
    explicit_indexing_adapter,
)
from xarray.indexes import Index, PandasIndex

from datastore_lab import dtypes, objects
from datastore_lab.dimensions import consistent_dims
from datastore_lab.errors import Corrupt, EngineError, LabError
from datastore_lab.keys import show
from datastore_lab.records import (
    ARRAY_ATTRIBUTES,
    CODEC_STATE,
    RESERVED,
    ArrayInfo,
    Record,
    Stat,
    normalise_selection,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.store import Store


class Origin:
    """The record that a view was made of, and what tells its data from other data put there since.

    Parameters
    ----------
    store : Store
    key : Key
    fingerprint : str, optional
        As `Engine.fingerprint` gave it when the view was made, in this process or another; None for now.
    """

    def __init__(self, store: Store, key: Key, fingerprint: str | None = None) -> None:
        self.store, self.key = store, key
        self._revision = store.engine.revision() if fingerprint is None else None
        self.fingerprint = fingerprint or self._now()

    def is_current(self) -> bool:
        """Say whether the record holds the same data still; where nothing was committed that costs nothing.

        Ask after reading: then what was read is of the same data too.
        """
        revision = self.store.engine.revision()
        if revision == self._revision:
            return True
        if self._now() != self.fingerprint:
            return False
        self._revision = revision
        return True

    def _now(self) -> str:
        return self.store.engine.fingerprint(self.store.prefix + self.key)


class StoredArray(BackendArray):
    """One array of one record, read in parts as xarray asks for them.

    Pickles as the address of the store, the key and the fingerprint of the record, so that a Dask worker in
    another process can read it, and notices when the record is another one by then.
    """

    def __init__(self, origin: Origin, name: str, info: ArrayInfo) -> None:
        self.origin, self.name = origin, name
        self.store, self.key = origin.store, origin.key
        self.shape = info.shape
        self.dtype = dtypes.parse(info.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.store.url.startswith("memory:"):
            return self.store.__reduce__()  # which says why not
        place = (self.store.url, "r", self.store.prefix)  # for reading, as the sender may have it locked
        info = ArrayInfo(dtypes.name(self.dtype), self.shape, (), 0, None)
        return (_unpickled, (place, self.key, self.origin.fingerprint, self.name, info))

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredArray:
        return self  # an address has no parts that could be changed

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        """Read a part; fancy indexing is done in memory on the smallest basic selection around it."""
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._read)

    def _read(self, selection: tuple[Any, ...]) -> NDArray[Any]:
        plain = tuple(part if isinstance(part, slice) else int(part) for part in selection)
        known = normalise_selection(plain, self.shape)  # a stream may have grown since
        try:
            found = self.store.engine.read(self.store.prefix + self.key, self.name, known)
        except (LabError, IndexError):
            self._check()  # says more where it is the reason
            raise
        self._check()
        shape = tuple(
            len(range(*part.indices(size)))
            for part, size in zip(plain, self.shape, strict=True)
            if isinstance(part, slice)
        )
        if found.shape != shape or dtypes.name(found.dtype) != dtypes.name(self.dtype):
            raise self._replaced()
        return found

    def _check(self) -> None:
        if not self.origin.is_current():
            raise self._replaced()

    def _replaced(self) -> EngineError:
        return EngineError(
            f"{self.name!r} in {show(self.key)!r} was replaced by another array since this view was "
            "made; open it anew with store.lazy()",
            key=self.key,
        )


def _unpickled(
    place: tuple[str, str, Key], key: Key, fingerprint: str, name: str, info: ArrayInfo
) -> StoredArray:
    from datastore_lab.store.opening import reopen

    return StoredArray(Origin(reopen(*place), key, fingerprint), name, info)


class LazyIndex(Index):
    """An index over a stored coordinate that is read when the first label is looked up.

    xarray reads the coordinates of a file when it opens it; with hours of time stamps that is hundreds of
    megabytes before anything was asked for. Everything is left to a `PandasIndex` made on first use.
    """

    def __init__(self, name: Hashable, variable: xarray.Variable) -> None:
        self._name = name
        self._variable = variable
        self._made: PandasIndex | None = None

    @property
    def index(self) -> PandasIndex:
        """The real index; reads the coordinate."""
        if self._made is None:
            self._made = PandasIndex(self._variable.values, self._variable.dims[0])
        return self._made

    @classmethod
    def concat(  # type: ignore[override]
        cls, indexes: Any, dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> PandasIndex:
        """Join indexes end to end."""
        return PandasIndex.concat([_real(index) for index in indexes], dim, positions)

    def create_variables(
        self, variables: Mapping[Any, xarray.Variable] | None = None
    ) -> dict[Any, xarray.Variable]:
        """Give the coordinate, still unread."""
        return {self._name: (variables or {}).get(self._name, self._variable)}

    def to_pandas_index(self) -> Any:
        """Give the pandas index; reads the coordinate."""
        return self.index.to_pandas_index()

    def isel(self, indexers: Mapping[Any, Any]) -> LazyIndex | None:
        """Select by position, still unread; a single position leaves no index."""
        indexer = indexers[self._variable.dims[0]]
        if isinstance(indexer, (int, np.integer)) or getattr(indexer, "ndim", 1) != 1:
            return None
        return LazyIndex(self._name, self._variable.isel({self._variable.dims[0]: indexer}))

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> Any:
        """Select by label."""
        return self.index.sel(labels, method=method, tolerance=tolerance)

    def equals(self, other: Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Compare the labels."""
        if isinstance(other, LazyIndex) and other._variable is self._variable:
            return True
        return bool(self.index.equals(_real(other), exclude=exclude))

    def join(  # type: ignore[override]
        self, other: Any, how: str = "inner"
    ) -> PandasIndex:
        """Combine the labels of two indexes."""
        return self.index.join(_real(other), how=how)

    def reindex_like(self, other: Any, method: Any = None, tolerance: Any = None) -> Any:
        """Find the labels of another index in this one."""
        return self.index.reindex_like(_real(other), method=method, tolerance=tolerance)

    def rename(self, name_dict: Any, dims_dict: Any) -> LazyIndex:
        """Follow the renaming of the coordinate or its dimension."""
        dims = [dims_dict.get(dim, dim) for dim in self._variable.dims]
        variable = xarray.Variable(dims, self._variable._data, self._variable.attrs, fastpath=True)
        return LazyIndex(name_dict.get(self._name, self._name), variable)

    def roll(self, shifts: Mapping[Any, int]) -> PandasIndex:  # type: ignore[override]
        """Shift the labels around."""
        return self.index.roll(shifts)

    def _copy(self, deep: bool = True, memo: dict[int, Any] | None = None) -> LazyIndex:
        return LazyIndex(self._name, self._variable)  # what is stored does not change under it


def _real(index: Any) -> Any:
    return index.index if isinstance(index, LazyIndex) else index


def open_lazy(store: Store, key: Key) -> xarray.Dataset | xarray.DataArray:
    """Open one record; see `Store.lazy`."""
    origin = Origin(store, key)  # before the description: a change between the two is noticed then
    stat = store.stat(key)
    with _described(key):
        dataset = _dataset(origin, stat)
        if (name := _single(stat)) is None:
            return dataset
        array = dataset[name]
        array.attrs.update(dataset.attrs)
        return array.rename(_given_name(stat, key))


def open_tree(store: Store, key: Key) -> xarray.DataTree:
    """Open everything below a node; see `Store.tree`."""
    nodes = {}
    for below in [key, *store.keys_below(key)]:
        path = "/".join(_node_name(part) for part in below[len(key) :])
        with _described(below):
            nodes[f"/{path}"] = _without_slashes(_node_dataset(store, below))
    return xarray.DataTree.from_dict(nodes, name=key[-1] if key else None)


def _node_dataset(store: Store, key: Key) -> xarray.Dataset:
    if key not in store:
        return xarray.Dataset()
    origin = Origin(store, key)
    return _dataset(origin, store.stat(key))


@contextlib.contextmanager
def _described(key: Key) -> Iterator[None]:
    """Say which record it is that can't be shown, since what it says of itself is damaged."""
    try:
        yield
    except LabError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(
            f"{show(key)!r} can't be shown as xarray, as its description is damaged: {error!r:.200}", key=key
        ) from error


def _without_slashes(dataset: xarray.Dataset) -> xarray.Dataset:
    names = {name: _node_name(str(name)) for name in {*dataset.variables, *dataset.dims} if "/" in str(name)}
    return dataset.rename(names) if names else dataset


def _node_name(part: str) -> str:
    """Name a node or variable of a `DataTree`, which takes any text but slashes and lone dots."""
    text = part.replace("%", "%25").replace("/", "%2F") if "/" in part else part
    return text.replace(".", "%2E") if text in {".", ".."} else text


def _dataset(origin: Origin, stat: Stat) -> xarray.Dataset:
    attrs = _attributes(stat)
    units = attrs.get("units") if isinstance(attrs.get("units"), Mapping) else {}
    own = stat.meta.get(ARRAY_ATTRIBUTES, {})
    variables = {}
    shapes = {name: info.shape for name, info in stat.arrays.items()}
    dims = consistent_dims(shapes, {name: info.dims for name, info in stat.arrays.items()})
    for name, info in stat.arrays.items():
        more = {"units": units[name]} if units and units.get(name) is not None else {}
        data = LazilyIndexedArray(StoredArray(origin, name, info))
        variables[name] = xarray.Variable(dims[name], data, {**more, **own.get(name, {})}, fastpath=True)
    named = _coordinates(stat, variables)
    indexes = {
        name: LazyIndex(name, variables[name])
        for name in named
        if variables[name].dims == (name,) and variables[name].dtype.kind != "V"
    }
    coords = xarray.Coordinates({name: variables.pop(name) for name in named}, indexes=indexes)
    return xarray.Dataset(variables, coords, attrs)


def _attributes(stat: Stat) -> dict[str, Any]:
    """Give the attributes for people; of an xarray object its own, as when it is read."""
    meta = stat.meta
    if stat.kind == "xarray":
        meta = objects.without_attributes(Record(stat.kind, {}, meta, {})).meta
    return {name: value for name, value in meta.items() if not name.startswith(RESERVED)}


def _coordinates(stat: Stat, variables: Mapping[str, xarray.Variable]) -> list[str]:
    """Name the arrays that are coordinates: those the codec says, and those named like their dimension."""
    state = stat.meta.get(CODEC_STATE)
    said = state.get("coords", ()) if isinstance(state, Mapping) else ()
    return [name for name in variables if name in said or variables[name].dims == (name,)]


def _single(stat: Stat) -> str | None:
    """Name the array that the record is, where it is one array rather than a set of them."""
    if stat.kind == "array" and len(stat.arrays) == 1:
        return next(iter(stat.arrays))
    state = _xarray_state(stat)
    return str(state["name"]) if state.get("type") == "DataArray" else None


def _given_name(stat: Stat, key: Key) -> Hashable:
    if stat.kind != "xarray":
        return key[-1]
    label = _xarray_state(stat).get("label")
    return label if isinstance(label, str) else None


def _xarray_state(stat: Stat) -> Mapping[str, Any]:
    state = stat.meta.get(CODEC_STATE)
    return state if stat.kind == "xarray" and isinstance(state, Mapping) else {}
