"""What the formats declare of themselves, each tried by doing it."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datastore_lab import open_store
from datastore_lab.errors import LabError
from datastore_lab.formats import format_names, format_traits
from datastore_lab.records import Appends, ArrayInfo, Packing, Stat

PLACES = {
    "hdf5": "lab.h5",
    "zarr": "lab.zarr",
    "parquet-folder": "lab.parquets",
    "sqlite": "lab.sqlite",
    "sql": "sqlite:///lab.db",
    "arrow": "lab.arrow",
    "parquet": "lab.parquet",
    "csv": "lab.csv",
}
SHAPE = (40, 5, 50, 10)
DIMS = ("t", "z", "y", "x")


@pytest.fixture(params=PLACES)
def format_(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return request.param


def put_zeros(store, packing=None):
    info = ArrayInfo("<f8", (0, *SHAPE[1:]), DIMS, 0, None, packing)
    appender = store.append("stream", Stat("stream", {"x": info}, {"rate": 1.0, "units": {"x": "V"}}))
    appender.extend({"x": np.zeros(SHAPE)})
    return appender


def test_every_format_is_tried_here():
    assert set(PLACES) == set(format_names())


def test_what_compresses_makes_zeros_small(format_, tmp_path):
    with open_store(PLACES[format_]) as store:
        put_zeros(store, Packing("gzip") if format_ == "hdf5" else None).close({})
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    if format_ == "csv":  # "0," is shorter than eight bytes, and grows with every digit
        assert size > 2 * np.prod(SHAPE)
        assert not format_traits(format_).compresses
    else:
        assert (size < np.prod(SHAPE) * 8 / 5) == format_traits(format_).compresses


def test_what_appends_shows_rows_to_others_before_it_ends(format_):
    with open_store(PLACES[format_]) as store:
        assert isinstance(store.engine, Appends) == format_traits(format_).appends
        appender = put_zeros(store)
        appender.flush()
        with open_store(PLACES[format_], "r") as other:
            assert other.stat("stream").arrays["x"].shape == SHAPE
        appender.close({})


def test_what_is_hierarchical_nests_any_object(format_):
    with open_store(PLACES[format_]) as store:
        try:
            store["a/b/c"] = 1
            nests = store["a/b/c"] == 1 and list(store.children("a/b")) == ["c"]
        except LabError:
            nests = False
    assert nests == format_traits(format_).hierarchical


def test_what_is_self_describing_says_types_shapes_and_units(format_, tmp_path):
    """By the file itself: what lies beside a table of text is no part of the format."""
    with open_store(PLACES[format_]) as store:
        put_zeros(store).close({"operator": "Ada"})
    place = PLACES[format_]
    if format_ == "csv":
        (tmp_path / "lab.stream.csv.json").unlink()
        place = "lab.stream.csv"
    with open_store(place, "r") as store:
        (key,) = store.keys_below()
        stat, traits = store.stat(key), format_traits(format_)
    info = next(iter(stat.arrays.values()))
    assert ([info.shape for info in stat.arrays.values()] == [SHAPE]) == traits.n_dimensional
    described = info.dims == DIMS and info.dtype == "<f8" and stat.meta.get("operator") == "Ada"
    assert (described and stat.meta.get("units") == {"x": "V"}) == traits.self_describing


SECOND = """
import sys
import numpy as np
from datastore_lab import open_store
from datastore_lab.errors import LabError
from datastore_lab.records import ArrayInfo, Stat
info = ArrayInfo("<f8", (0,), ("t",), 0, None)
try:
    with open_store(sys.argv[1], "a") as store:
        appender = store.append(sys.argv[2], Stat("stream", {"x": info}, {}))
        appender.extend({"x": np.arange(3.0)})
        appender.close({})
except LabError as error:
    sys.exit(error.code)
"""


def test_what_is_written_in_parallel_takes_two_processes_at_once(format_):
    with open_store(PLACES[format_]) as store:
        appender = put_zeros(store)
        appender.flush()
        command = [sys.executable, "-c", SECOND, PLACES[format_], "other"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        appender.extend({"x": np.ones(SHAPE)})
        appender.close({})
        both = second.returncode == 0 and sorted(store) == ["other", "stream"]
    with open_store(PLACES[format_], "r") as store:
        assert store.stat("stream").arrays["x"].shape == (80, *SHAPE[1:])
        assert store.verify() == []
    assert both == format_traits(format_).parallel_write, second.stderr


class Ranges(io.RawIOBase):
    """A file as object storage gives it: any range of bytes, each a request."""

    def __init__(self, path):
        self._file, self.taken = path.open("rb"), 0

    def close(self):
        self._file.close()
        super().close()

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, *where):
        return self._file.seek(*where)

    def tell(self):
        return self._file.tell()

    def readinto(self, buffer):
        count = self._file.readinto(buffer)
        self.taken += count
        return count


def test_what_is_fit_for_the_cloud_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = {name: np.random.default_rng(3).random(200_000) for name in "abcdefgh"}
    infos = {name: ArrayInfo("<f8", (0,), ("t",), 0, None) for name in noise}
    for name in ("parquet", "csv", "zarr"):
        with open_store(PLACES[name]) as store:
            appender = store.append("s", Stat("stream", infos, {}))
            appender.extend(noise)
            appender.close({})
        assert format_traits(name).cloud
    with Ranges(tmp_path / "lab.s.parquet") as file:
        column = pq.read_table(pa.PythonFile(file, mode="r"), columns=["c"])["c"].to_numpy()
    assert np.array_equal(column, noise["c"])
    assert file.taken < (tmp_path / "lab.s.parquet").stat().st_size / 4, "a column alone"
    with (tmp_path / "lab.s.csv").open("rb") as file:
        once = io.BufferedReader(_Forward(file))
        assert np.array_equal(pd.read_csv(once, usecols=["c"])["c"], noise["c"]), "from beginning to end"
    parts = [path for path in (tmp_path / "lab.zarr" / "s" / "c").rglob("*") if path.is_file()]
    whole = sum(path.stat().st_size for path in (tmp_path / "lab.zarr").rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in parts) < whole / 4, "an array is files of its own"


class _Forward(io.RawIOBase):
    """A file that is read once, from beginning to end."""

    def __init__(self, file):
        self._file = file

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._file.readinto(buffer)
