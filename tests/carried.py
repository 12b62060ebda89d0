"""How each medium carries an array, asked of its own library: one function per engine."""

import contextlib
import json
import sqlite3

import numpy as np


def how(engine, path, key, name):
    """Say in a word or two how an array is carried; ``"exact"`` where the medium can't be asked cheaply."""
    ask = ASK.get(engine)
    return "exact" if ask is None else ask(path, key, name)


def _hdf5(path, key, name):
    import h5py

    with h5py.File(path) as file:
        dataset = file[key][name]
        if "lab_dtype" not in dataset.attrs:
            return "native"
        text = h5py.check_string_dtype(dataset.dtype)
        if text is not None:
            return "as UTF-8" if text.length is None else "as UTF-8 of fixed length"
        if dataset.dtype.names is not None:
            return "as compound"
        return "as opaque bytes" if dataset.dtype.kind == "V" else f"as {dataset.dtype.name}"


def _zarr(path, key, name):
    document = json.loads((path / key / name / "zarr.json").read_text())
    if "lab_dtype" not in document["attributes"]:
        return "native"
    kind = document["data_type"]
    return {"string": "as string", "uint8": "as bytes"}.get(str(kind), "as little-endian")


def _arrow(path, key, name):
    import pyarrow as pa

    with pa.memory_map(str(path.with_name(f"{path.stem}.{key}.arrow"))) as source:
        return _arrow_field(pa.ipc.open_file(source).schema.field(name))


def _parquet(path, key, name):
    import pyarrow.parquet as pq

    return _arrow_field(pq.read_schema(path.with_name(f"{path.stem}.{key}.parquet")).field(name))


def _arrow_field(field):
    if not field.metadata or b"lab_dtype" not in field.metadata:
        return "native"
    return _arrow_type(field.type)


def _arrow_type(kind):
    words = {"fixed_size_binary": "bytes", "extension": "pairs", "fixed_size_list": "pairs"}
    text = str(kind)
    return next((f"as {word}" for begin, word in words.items() if text.startswith(begin)), f"as {text}")


def _parquet_folder(path, key, name):
    import pyarrow.parquet as pq
    import yaml

    folder = path / key
    array = yaml.safe_load((folder / "lab.yaml").read_text())["arrays"][name]
    if array["stored"] != "values":
        text = "native" if array["dtype"] == "T" else "as string"
        return {"lists": "as pairs", "bytes": "as bytes", "text": text}[array["stored"]]
    kind = pq.read_schema(folder / f"{array['table']}.parquet").field(name).type
    return "native" if np.dtype(kind.to_pandas_dtype()).str == array["dtype"] else _arrow_type(kind)


def _sqlite(path, _key, _name):
    with contextlib.closing(sqlite3.connect(path)) as base:
        ((kind,),) = base.execute("SELECT DISTINCT typeof(bytes) FROM lab_part")
    return f"as {kind}"


ASK = {
    "memory": lambda *_: "native",
    "hdf5": _hdf5,
    "zarr": _zarr,
    "arrow": _arrow,
    "parquet": _parquet,
    "parquet-folder": _parquet_folder,
    "sqlite": _sqlite,
    "csv": lambda *_: "as text",
    "trials": lambda *_: "as text",
}


def label(dtype):
    """Name a type for people."""
    special = {np.dtype(np.longdouble): "longdouble", np.dtype(np.clongdouble): "clongdouble"}
    if dtype in special:
        return special[dtype]
    if dtype.kind == "T":
        return "StringDType"
    if dtype.names is not None:
        return _structure(dtype)
    order = "big-endian " if dtype.byteorder == ">" else ""
    word = {"S": "bytes", "U": "str", "V": "void"}.get(dtype.kind)
    if word is not None:
        size = dtype.itemsize // 4 if dtype.kind == "U" else dtype.itemsize
        return f"{order}{word} `{dtype.kind}{size}`"
    if dtype.kind in "Mm" and np.datetime_data(dtype)[0] == "generic":
        return f"{order}{dtype.name} without unit"
    return f"{order}{dtype.name}"


def _structure(dtype):
    fields = [dtype.fields[name][0] for name in dtype.names]
    ends = [dtype.fields[name][1] + dtype.fields[name][0].itemsize for name in dtype.names]
    packed = sorted(ends)[-1] == dtype.itemsize == sum(field.itemsize for field in fields)
    words = ["structured"]
    words += ["nested"] if any(field.names for field in fields) else []
    words += ["sub-arrays"] if any(field.subdtype for field in fields) else []
    words += [] if packed else ["gaps"]
    words += [] if ends == sorted(ends) else ["out of order"]
    words += ["times, text"] if any(field.kind in "MU" for field in fields) else []
    words += ["odd names"] if not all(name.isidentifier() for name in dtype.names) else []
    return ", ".join(words)
