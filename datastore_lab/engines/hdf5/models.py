"""Small records made by copying: HDF5 copies a group at a third of what it costs to make one piece by piece.

Of each form of record that is written more than once a model lies in a file in memory, with its datasets and
its seal open. These get the values of a record, and the whole is copied to where it belongs. What comes out
is the layout that `datastore_lab.engines.hdf5.layout` makes piece by piece.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
from h5py import h5d, h5g, h5o, h5p, h5s

from datastore_lab.engines.hdf5 import attrs, links, names, seals, sums, types
from datastore_lab.records import ARRAY_ATTRIBUTES, ArrayInfo, Stat, default_dims

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Record

COMPACT = 8 << 10
"""Arrays of at most so many bytes lie in their object header."""

FORMAT = ("v108", "latest")
"""The oldest format whose metadata HDF5 checksums, for all that is made; any, for what is there."""

_MOST, _MOST_ARRAYS = 64, 4
_PLAIN = "biufcS"
_SCALAR = h5s.create(h5s.SCALAR)
_numbers = itertools.count()


def _untimed() -> Any:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.COMPACT)
    plist.set_obj_track_times(False)  # else a copy would tell the time at which its model was made
    return plist


_PLIST = _untimed()


class _Model(NamedTuple):
    """A record to be copied, and those parts of it that are overwritten before.

    Attributes
    ----------
    group : h5py.h5g.GroupID
    datasets : list of (h5py.h5d.DatasetID, h5py.h5t.TypeID)
        Each with the type of its data in memory.
    seal : Blank
    digest : str
        That of the seal, where a record has no attributes.
    """

    group: Any
    datasets: list[tuple[Any, Any]]
    seal: seals.Blank
    digest: str


class Models:
    """The models of one writer."""

    def __init__(self) -> None:
        self._file: h5py.File | None = None
        self._known: dict[Any, _Model | None] = {}

    def put(self, group: Any, link: bytes, record: Record, carried: Mapping[str, types.Carried]) -> bool:
        """Put a record, but for its attributes, below a group by copying; False where it has no model.

        Parameters
        ----------
        group : h5py.h5g.GroupID
        link : bytes
            Under which there is nothing yet.
        record : Record
        carried : mapping of str to Carried
            Its arrays.
        """
        model = self._of(record, carried)
        if model is None:
            return False
        found = []
        for (data, *_), (dataset, memory) in zip(carried.values(), model.datasets, strict=True):
            dataset.write(h5s.ALL, h5s.ALL, data, memory)
            found.append(sums.of(data))
        model.seal.fill(seals.digest(described(record, carried)) if record.meta else model.digest, found)
        h5o.copy(model.group, b".", group, link, lcpl=links.LINK)
        return True

    def _of(self, record: Record, carried: Mapping[str, types.Carried]) -> _Model | None:
        """Give the model of a record; None for one that is not small and plain, or the first of its form."""
        form = _form(record, carried)
        if form is None:
            return None
        found = self._known.get(form)
        if found is None and form in self._known:
            found = self._known[form] = self._make(record, carried)
        elif found is None:
            if len(self._known) >= _MOST:
                self.close()
            self._known[form] = None
        return found

    def _make(self, record: Record, carried: Mapping[str, types.Carried]) -> _Model:
        if self._file is None:
            name = f"models {next(_numbers)}"  # HDF5 takes two files of one name for the same
            self._file = h5py.File(name, "w", driver="core", backing_store=False, libver=FORMAT)
        group = h5g.create(self._file["/"].id, None, gcpl=links.GROUP)
        datasets = [_dataset(group, name, one.data) for name, one in carried.items()]
        attrs.put(group, names.KIND, record.kind, new=True)
        digest = seals.digest(described(record._replace(meta={}), carried))
        return _Model(group, datasets, seals.Blank(group, carried), digest)

    def close(self) -> None:
        """Forget all models."""
        self._known.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _form(record: Record, carried: Mapping[str, types.Carried]) -> Any:
    """Say what small records have to share to have one model; None for all others."""
    if record.dims or len(carried) > _MOST_ARRAYS or ARRAY_ATTRIBUTES in record.meta:
        return None
    form: list[Any] = [record.kind]
    for name, (data, attributes, _name) in carried.items():
        dtype = data.dtype
        if not 0 < data.nbytes <= COMPACT or attributes or dtype.kind not in _PLAIN or dtype.metadata:
            return None
        form.append((name, dtype, data.shape))
    return tuple(form)


def described(record: Record, carried: Mapping[str, types.Carried]) -> Stat:
    """Describe a record for its seal, which holds neither sizes nor chunks."""
    infos = {
        name: _info(name, one.dtype, one.data.shape, tuple(record.dims.get(name) or ()))
        for name, one in carried.items()
    }
    return Stat(record.kind, infos, record.meta)


@functools.lru_cache(maxsize=1024)
def _info(name: str, dtype: str, shape: tuple[int, ...], own: tuple[str, ...]) -> ArrayInfo:
    return ArrayInfo(dtype, shape, own or default_dims(name, len(shape)), 0, None)


def _dataset(group: Any, name: str, data: NDArray[Any]) -> tuple[Any, Any]:
    """Make a dataset; gives the type of its data in memory too."""
    kind, space = types.file_type(data.dtype), h5s.create_simple(data.shape) if data.shape else _SCALAR
    dataset = h5d.create(group, links.encode(name), kind, space, _PLIST, lcpl=links.LINK)
    return dataset, types.memory_type(data.dtype)
