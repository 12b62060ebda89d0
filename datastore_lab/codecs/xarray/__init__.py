"""xarray objects, and records without a codec as xarray objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from datastore_lab import dtypes, media
from datastore_lab.codecs.xarray import levels
from datastore_lab.codecs.xarray.arrays import ArraysCodec
from datastore_lab.errors import NotStorable
from datastore_lab.nesting import Packer, unpack
from datastore_lab.records import ARRAY_ATTRIBUTES, CODEC_STATE, RESERVED, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Encode = Callable[[Any], Record]
_Decode = Callable[[Record], Any]

_UNNAMED = "data"

__all__ = ["ArraysCodec", "XarrayCodec"]


class XarrayCodec:
    """Stores datasets, data arrays, trees and single variables, readable by xarray itself.

    Variables and coordinates are arrays under their own names, attributes of a dataset are attributes of
    the node, those of a variable attributes of the array. A `MultiIndex` is kept as the table codec keeps
    it: its levels and codes. Values that are computed on demand (dask, files) are computed when they are
    stored. Of what xarray calls ``encoding`` all is kept but objects of the library that read the file, such
    as its compressors.

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
            return self._record({_UNNAMED: obj}, xr.Dataset(), {"type": cls.__name__})
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
        dataset.encoding = self._encoding(state, "", record)
        if state["type"] == "Dataset":
            return dataset
        return dataset[state["name"]].rename(self._label(state, record))

    def _dataset(self, dataset: xr.Dataset, state: dict[str, Any], label: Hashable = None) -> Record:
        for name, index in dataset.xindexes.items():
            _check_index(name, index)
        state["coords"] = [_text(name) for name in dataset.coords]
        if bare := [name for name in dataset.coords if name in dataset.dims and name not in dataset.xindexes]:
            state["unindexed"] = bare
        return self._record(dataset.variables, dataset, state, label)

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
                self.encode(node.to_dataset(inherit=False)), node.path.strip("/").replace("/", ".") or "root"
            )
            for node in tree.subtree
        }
        state = {"type": "DataTree", "nodes": nodes, **self._named(tree.name, packer)}
        return Record(self.kind, packer.arrays, {CODEC_STATE: state}, packer.dims)

    def _record(
        self,
        variables: Mapping[Any, xr.Variable],
        dataset: xr.Dataset,
        state: dict[str, Any],
        label: Hashable = None,
    ) -> Record:
        packer = Packer()
        packer.claim(
            {_text(name) for name in itertools.chain(variables, *(v.dims for v in variables.values()))}
        )
        known = self._levels(dataset, state, packer)
        for name, variable in variables.items():
            if name not in known:
                array, form = _values(name, variable)
                packer.put(name, array, variable.dims)  # type: ignore[arg-type]
                if form:
                    state.setdefault("types", {})[name] = form
        meta = self._plain(dataset.attrs, "", state, packer)
        of_arrays = {
            name: self._plain(v.attrs, name, state, packer, whole=name in known)
            for name, v in variables.items()
            if v.attrs
        }
        for name, encoding in [("", dataset.encoding), *((n, v.encoding) for n, v in variables.items())]:
            self._keep_encoding(encoding, name, state, packer)
        state.update(self._named(label, packer))
        if inner := [name for name in packer.arrays if name not in variables]:
            state["embedded"] = inner
        reserved = {ARRAY_ATTRIBUTES: of_arrays} if any(of_arrays.values()) else {}
        return Record(self.kind, packer.arrays, {**meta, **reserved, CODEC_STATE: state}, packer.dims)

    def _levels(self, dataset: xr.Dataset, state: dict[str, Any], packer: Packer) -> set[Hashable]:
        """Describe each MultiIndex; gives the names of its coordinates, which are no arrays of their own."""
        known: set[Hashable] = set()
        for index, variables in dataset.xindexes.group_by_index():
            if isinstance(index, xr.indexes.PandasMultiIndex):
                what = f"the index {index.dim!r}"
                described = {
                    "dim": index.dim,
                    "index": packer.embed(self._other(what, index.index), str(index.dim)),
                    "types": {name: levels.coordinate_type(index, name) for name in index.index.names},
                }
                state.setdefault("levels", []).append(described)
                known.update(variables)
        return known

    def _keep_encoding(
        self, encoding: Mapping[Any, Any], name: str, state: dict[str, Any], packer: Packer
    ) -> None:
        kept = {key: value for key, value in encoding.items() if self._storable(key, value)}
        if kept:
            place = f"{name}.encoding" if name else "encoding"
            described = {"is": kept} if all(itertools.starmap(_fits, kept.items())) else {}
            state.setdefault("encodings", {})[name] = described or {
                "of": packer.embed(self._other("the encoding", kept), place)
            }

    def _storable(self, key: Any, value: Any) -> bool:
        if _fits(key, value):
            return True
        try:
            self._other("the encoding", {key: value})
        except NotStorable:
            return False
        return True

    def _encoding(self, state: Mapping[str, Any], name: str, record: Record) -> dict[Any, Any]:
        described = state.get("encodings", {}).get(name, {})
        found = self._inner(described["of"], record) if "of" in described else described.get("is", {})
        return dict(found)

    def _plain(
        self,
        attrs: Mapping[Any, Any],
        name: str,
        state: dict[str, Any],
        packer: Packer,
        *,
        whole: bool = False,
    ) -> dict[str, Any]:
        """Give those attributes that JSON holds exactly; the others, or all, go into the codec state."""
        plain = {key: value for key, value in attrs.items() if not whole and _fits(key, value)}
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
                variables[name] = xr.Variable(dims, values, attrs, self._encoding(state, name, record))
        for described in state.get("levels", ()):
            variables.update(self._level_variables(described, state, record))
        return variables

    def _level_variables(
        self, described: Mapping[str, Any], state: Mapping[str, Any], record: Record
    ) -> dict[str, xr.Variable]:
        index = levels.restore(described, self._inner(described["index"], record))
        made: Any = index.create_variables()
        for name, variable in made.items():
            variable.attrs = self._odd(state, name, record)
            variable.encoding = self._encoding(state, name, record)
        return made  # type: ignore[no-any-return]

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


def _assemble(
    variables: dict[str, xr.Variable], state: Mapping[str, Any], attrs: dict[str, Any]
) -> xr.Dataset:
    names = set(state["coords"])
    data = {name: variable for name, variable in variables.items() if name not in names}
    coords = {name: variables[name] for name in state["coords"]}
    if not state.get("levels"):
        return xr.Dataset(data, coords, attrs).drop_indexes(state.get("unindexed", ()))
    return levels.assemble(data, coords, state, attrs)


def _check_index(name: Hashable, index: Any) -> None:
    if type(index) is xr.indexes.PandasMultiIndex:
        return
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
