"""xarray objects, and records without a codec as xarray objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from datastore_lab import dtypes, media
from datastore_lab.dimensions import consistent_dims
from datastore_lab.errors import NotStorable
from datastore_lab.nesting import Packer, unpack
from datastore_lab.records import ARRAY_ATTRIBUTES, CODEC_STATE, RESERVED, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Encode = Callable[[Any], Record]
_Decode = Callable[[Record], Any]

_UNNAMED = "data"


class XarrayCodec:
    """Stores datasets, data arrays, trees and single variables, readable by xarray itself.

    Variables and coordinates are arrays under their own names, attributes of a dataset are attributes of
    the node, those of a variable attributes of the array. Values that are computed on demand (dask, files)
    are computed when they are stored. What xarray calls ``encoding`` (how the file they came from was
    packed) is not kept.

    Parameters
    ----------
    encode, decode : callable
        Turn any other object into a record and back; used for attributes that JSON can't hold.

    Examples
    --------
    >>> codec = XarrayCodec(None, None)
    >>> trace = xr.DataArray([1.0, 2.0], {"t": [0, 1]}, name="trace", attrs={"units": "V"})
    >>> codec.decode(codec.encode(trace)).identical(trace)
    True
    """

    kind = "xarray"

    def __init__(self, encode: _Encode | None = None, decode: _Decode | None = None) -> None:
        self._encode = encode
        self._decode = decode

    def encode(self, obj: Any) -> Record:
        """Give the record of an xarray object.

        Raises
        ------
        NotStorable
            Naming the variable, index or attribute that can't be stored.
        """
        cls = type(obj)
        if cls is xr.Dataset:
            return self._dataset(obj, {"type": "Dataset"})
        if cls is xr.DataArray:
            return self._data_array(obj)
        if cls is xr.DataTree:
            return self._tree(obj)
        if cls in {xr.Variable, xr.IndexVariable}:
            return self._record({_UNNAMED: obj}, {}, {"type": cls.__name__})
        raise NotStorable(
            f"objects of {cls.__module__}.{cls.__qualname__} can't be stored as they are; convert to "
            "an xarray.Dataset, or call register_type()",
            key=cls.__qualname__,
        )

    def decode(self, record: Record) -> Any:
        """Give back the xarray object, with its values in memory."""
        state = record.meta[CODEC_STATE]
        if state["type"] == "DataTree":
            nodes = {path: self.decode(unpack(node, record.arrays)) for path, node in state["nodes"].items()}
            return xr.DataTree.from_dict(nodes, name=self._label(state, record))
        variables = self._variables(record, state)
        if state["type"] == "Variable":
            return variables[_UNNAMED]
        if state["type"] == "IndexVariable":
            return variables[_UNNAMED].to_index_variable()
        attrs = {name: value for name, value in record.meta.items() if not name.startswith(RESERVED)}
        dataset = _assemble(variables, state, {**attrs, **self._odd(state, "", record)})
        if state["type"] == "Dataset":
            return dataset
        return dataset[state["name"]].rename(self._label(state, record))

    def _dataset(self, dataset: xr.Dataset, state: dict[str, Any], label: Hashable = None) -> Record:
        for name, index in dataset.xindexes.items():
            _check_index(name, index)
        state["coords"] = [_text(name) for name in dataset.coords]
        if bare := [name for name in dataset.coords if name in dataset.dims and name not in dataset.xindexes]:
            state["unindexed"] = bare
        return self._record(dataset.variables, dataset.attrs, state, label)

    def _data_array(self, array: xr.DataArray) -> Record:
        name = array.name if isinstance(array.name, str) and array.name else _UNNAMED
        while name in {*array.coords, *array.dims}:
            name = f"{name}~"
        dataset = array.rename(None).to_dataset(name=name)  # the attributes stay on the variable
        return self._dataset(dataset, {"type": "DataArray", "name": name}, array.name)

    def _tree(self, tree: xr.DataTree) -> Record:
        packer = Packer()
        nodes = {
            node.path: packer.embed(
                self.encode(node.to_dataset(inherit=False)), node.path.strip("/") or "root"
            )
            for node in tree.subtree
        }
        state = {"type": "DataTree", "nodes": nodes, **self._named(tree.name, packer)}
        return Record(self.kind, packer.arrays, {CODEC_STATE: state}, packer.dims)

    def _record(
        self,
        variables: Mapping[Any, xr.Variable],
        attrs: Mapping[Any, Any],
        state: dict[str, Any],
        label: Hashable = None,
    ) -> Record:
        packer = Packer()
        packer.claim(
            {_text(name) for name in itertools.chain(variables, *(v.dims for v in variables.values()))}
        )
        for name, variable in variables.items():
            array, known = _values(name, variable)
            packer.put(name, array, variable.dims)  # type: ignore[arg-type]
            if known:
                state.setdefault("types", {})[name] = known
        meta = self._plain(attrs, "", state, packer)
        of_arrays = {
            name: self._plain(v.attrs, name, state, packer) for name, v in variables.items() if v.attrs
        }
        state.update(self._named(label, packer))
        if inner := [name for name in packer.arrays if name not in variables]:
            state["embedded"] = inner
        reserved = {ARRAY_ATTRIBUTES: of_arrays} if any(of_arrays.values()) else {}
        return Record(self.kind, packer.arrays, {**meta, **reserved, CODEC_STATE: state}, packer.dims)

    def _plain(
        self, attrs: Mapping[Any, Any], name: str, state: dict[str, Any], packer: Packer
    ) -> dict[str, Any]:
        """Give those attributes that JSON holds exactly; the others go into the codec state."""
        plain = {key: value for key, value in attrs.items() if _fits(key, value)}
        if odd := {key: value for key, value in attrs.items() if key not in plain}:
            what = f"the attributes of {name!r}" if name else "the attributes"
            place = f"{name}.attrs" if name else "attrs"
            state.setdefault("attrs", {})[name] = packer.embed(self._other(what, odd), place)
        return plain

    def _variables(self, record: Record, state: Mapping[str, Any]) -> dict[str, xr.Variable]:
        inner = set(state.get("embedded", ()))
        attributes = record.meta.get(ARRAY_ATTRIBUTES, {})
        variables = {}
        for name, array in record.arrays.items():
            if name not in inner:
                values = array.astype(object) if name in state.get("types", {}) else array
                dims = record.dims.get(name) or ()
                attrs = {**attributes.get(name, {}), **self._odd(state, name, record)}
                variables[name] = xr.Variable(dims, values, attrs)
        return variables

    def _odd(self, state: Mapping[str, Any], name: str, record: Record) -> Any:
        described = state.get("attrs", {}).get(name)
        return {} if described is None else self._inner(described, record)

    def _named(self, label: Hashable, packer: Packer) -> dict[str, Any]:
        """Describe a name, which xarray allows to be any hashable object."""
        if label is None or _fits("name", label):
            return {} if label is None else {"label": label}
        return {"label": {"of": packer.embed(self._other("the name", label), "name")}}

    def _label(self, state: Mapping[str, Any], record: Record) -> Any:
        label = state.get("label")
        return self._inner(label["of"], record) if isinstance(label, Mapping) else label

    def _other(self, what: str, value: Any) -> Record:
        if self._encode is None:
            raise NotStorable(f"{what} can't be stored: JSON does not hold {value!r:.80}", key=what)
        try:
            return self._encode(value)
        except NotStorable as error:
            raise NotStorable(f"{what}: {error.message}", key=error.key) from error

    def _inner(self, described: Mapping[str, Any], record: Record) -> Any:
        if self._decode is None:
            raise NotStorable("this item holds others; read it through a store", key=described["kind"])
        return self._decode(unpack(described, record.arrays))


class ArraysCodec:
    """Shows a record that no codec wrote, or a recorded stream, as a dataset.

    A one-dimensional array named like its dimension is a coordinate; ``units`` of the metadata become
    attributes of the variables; the rest of the metadata those of the dataset. An array whose axes do not
    fit the dimensions of the others gets dimensions of its own.

    Examples
    --------
    >>> record = Record("stream", {"v": np.zeros(3)}, {"units": {"v": "V"}}, {"v": ("time",)})
    >>> ArraysCodec().decode(record)["v"].attrs
    {'units': 'V'}
    """

    kind = "arrays"

    def __init__(self, encode: _Encode | None = None, decode: _Decode | None = None) -> None:
        del encode, decode  # there are no other objects inside

    def encode(self, obj: Any) -> Record:
        """Refuse: such records are written by devices and by other programs."""
        raise NotStorable(
            f"objects of {type(obj).__qualname__} are not stored as bare arrays; store them as they are",
            key=None,
        )

    def decode(self, record: Record) -> xr.Dataset:
        """Give a dataset with the values in memory."""
        units = record.meta.get("units")
        units = units if isinstance(units, Mapping) else {}
        attributes = record.meta.get(ARRAY_ATTRIBUTES, {})
        variables = {}
        shapes = {name: array.shape for name, array in record.arrays.items()}
        for name, dims in consistent_dims(shapes, record.dims).items():
            unit = {"units": units[name]} if units.get(name) is not None else {}
            variables[name] = (dims, record.arrays[name], {**attributes.get(name, {}), **unit})
        attrs = {
            name: value for name, value in record.meta.items() if name != "units" and name[:4] != RESERVED
        }
        return xr.Dataset(variables, attrs=attrs)


def _assemble(
    variables: dict[str, xr.Variable], state: Mapping[str, Any], attrs: dict[str, Any]
) -> xr.Dataset:
    names = set(state["coords"])
    data = {name: variable for name, variable in variables.items() if name not in names}
    coords = {name: variables[name] for name in state["coords"]}
    return xr.Dataset(data, coords, attrs).drop_indexes(state.get("unindexed", ()))


def _check_index(name: Hashable, index: Any) -> None:
    if type(index).__name__ == "PandasMultiIndex":
        raise NotStorable(
            f"the coordinate {name!r} belongs to a MultiIndex, which can't be stored as it is; store "
            f"obj.reset_index({index.dim!r}) and call set_index() after reading",
            key=name,
        )
    if type(index) is not xr.indexes.PandasIndex:
        raise NotStorable(
            f"the coordinate {name!r} has an index of {type(index).__qualname__}, which can't be stored; "
            f"store obj.drop_indexes({name!r})",
            key=name,
        )


def _values(name: str, variable: xr.Variable) -> tuple[NDArray[Any], str | None]:
    """Give the values of a variable, and ``"object"`` where text was held as Python objects."""
    if not isinstance(variable.dtype, np.dtype):
        raise NotStorable(
            f"the variable {name!r} holds pandas values of type {variable.dtype}, which xarray can't give as "
            "an array; convert it with astype()",
            key=name,
        )
    array = np.asarray(variable.to_numpy())
    try:
        if array.dtype == object and all(type(item) is str for item in array.flat):
            return array.astype(np.dtypes.StringDType()), "object"
        dtypes.check(array.dtype)
    except (NotStorable, UnicodeEncodeError) as error:
        raise NotStorable(f"the variable {name!r} can't be stored: {error}", key=name) from error
    return array, None


def _text(name: Hashable) -> str:
    if not isinstance(name, str) or not name:
        raise NotStorable(
            f"the variable or dimension {name!r} is not named by text; use rename() before storing", key=name
        )
    return name


def _fits(name: Any, value: Any) -> bool:
    """Say whether JSON holds an attribute so that exactly the same comes back."""
    if type(name) is not str or not name or name.startswith(RESERVED) or not _exact(value):
        return False
    try:
        media.check_json({name: value})
    except NotStorable:
        return False
    return True


def _exact(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(map(_exact, value.values()))
    if isinstance(value, list):
        return type(value) is list and all(map(_exact, value))
    return type(value) in {type(None), bool, int, float, str}
