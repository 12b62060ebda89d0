"""Stores in an object store, against a real server on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from obstore.store import MemoryStore, S3Store

from datastore_lab import open_store
from datastore_lab.engines.zarr.s3 import S3Engine
from datastore_lab.errors import Corrupt, EngineError, Foreign, ReadOnly
from datastore_lab.records import Record
from datastore_lab.testing.conformance import ObjectStoreConformance

BUCKET = "lab"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_bucket(url, patience=60.0):
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def server():
    """A server of its own, found by what AWS's own tools find theirs by."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        try:
            make_bucket(f"{url}/{BUCKET}")
            yield url
        finally:
            process.kill()


@pytest.fixture
def place(tmp_path):
    return f"{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}.zarr"


def objects(path):
    return S3Store(BUCKET, prefix=path.removeprefix(f"{BUCKET}/"))


class TestS3(ObjectStoreConformance):
    @pytest.fixture
    def path(self, place):
        return place

    @staticmethod
    def open(path, mode):
        return S3Engine(path, mode)

    @staticmethod
    def open_waiting(path):
        return S3Engine(path, "a", timeout=1.0)

    @staticmethod
    def objects_of(path, key):
        return [item["path"] for part in obstore.list(objects(path), "/".join(key)) for item in part]

    @staticmethod
    def get(path, name):
        return bytes(obstore.get(objects(path), name).bytes())

    @staticmethod
    def put(path, name, content):
        obstore.put(objects(path), name, content)


def test_a_url_opens_it_and_zarr_and_xarray_read_it(place):
    values = np.arange(6.0).reshape(2, 3)
    with open_store(f"s3://{place}", "w") as store:
        store["run/a"] = xr.DataArray(values, dims=("row", "col"), name="data", attrs={"unit": "V"})
        store["n"] = 42
    with open_store(f"s3://{place}", "r") as store:
        assert store["n"] == 42
        assert store["run/a"].attrs == {"unit": "V"}
        assert np.array_equal(store["run/a"].values, values)
    source = zarr.storage.ObjectStore(objects(place), read_only=True)
    group = zarr.open_group(source, mode="r")
    name = next(name for name, array in group["run/a"].arrays() if array.shape == (2, 3))
    assert np.array_equal(group[f"run/a/{name}"][...], values)
    with xr.open_datatree(source, engine="zarr", consolidated=False) as tree:
        assert tree["run/a"][name].dims == ("row", "col")


def test_what_another_program_wrote_is_read(place):
    root = zarr.create_group(zarr.storage.ObjectStore(objects(place)), zarr_format=3)
    values = np.arange(40.0).reshape(8, 5)
    for name, options in {"plain": {}, "sharded": {"shards": (4, 5)}}.items():
        array = root.create_array(name, shape=(8, 5), chunks=(2, 5), dtype="f8", **options)
        array[...] = values
    root.create_array("holes", shape=(4,), chunks=(2,), dtype="i4", fill_value=7)
    engine = S3Engine(place, "r")
    for name in ("plain", "sharded"):
        assert np.array_equal(engine.read((), name, (slice(3, 6), 1)), values[3:6, 1])
    assert engine.read((), "holes").tolist() == [7, 7, 7, 7]


def test_data_go_first_and_what_makes_them_visible_last(place, monkeypatch):
    engine = S3Engine(place, "w")
    engine.write(("a",), Record("array", {"data": np.arange(3)}, {}, {}))
    seen, put = [], obstore.put

    def note(store, path, *args, **options):
        seen.append(path)
        return put(store, path, *args, **options)

    monkeypatch.setattr(obstore, "put", note)
    engine.write(("b", "c"), Record("array", {"x": np.arange(3)}, {}, {}))
    assert seen == ["b/c/x/c.0", "b/c/x/zarr.json", "b/c/zarr.json", "b/zarr.json", "zarr.json"]


@pytest.mark.parametrize("at", range(5))
def test_a_writer_that_dies_leaves_no_half_record(place, monkeypatch, at):
    engine = S3Engine(place, "w")
    engine.write(("old",), Record("array", {"data": np.arange(3)}, {}, {}))
    left, put = [at], obstore.put

    def fail(store, path, *args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise obstore.exceptions.GenericError(path)
        return put(store, path, *args, **options)

    monkeypatch.setattr(obstore, "put", fail)
    with pytest.raises(EngineError, match="refused"):
        engine.write(("g", "new"), Record("array", {"data": np.arange(3)}, {}, {}))
    monkeypatch.undo()
    reader = S3Engine(place, "r")
    keys = set(reader.keys())
    assert keys == ({("old",), ("g", "new")} if at == 4 else {("old",)})
    for key in keys:
        assert reader.read(key, "data").tolist() == [0, 1, 2]
    engine.write(("g", "new"), Record("array", {"data": np.arange(2)}, {}, {}))
    assert reader.read(("g", "new"), "data").tolist() == [0, 1]
    assert not list(reader.verify())


def test_a_replacement_that_was_interrupted_is_damage_and_never_a_mixture(place, monkeypatch):
    engine = S3Engine(place, "w")
    engine.write(("a",), Record("array", {"x": np.zeros(3), "y": np.zeros(3)}, {}, {}))
    left, put = [1], obstore.put

    def fail(store, path, *args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise obstore.exceptions.GenericError(path)
        return put(store, path, *args, **options)

    monkeypatch.setattr(obstore, "put", fail)
    with pytest.raises(EngineError):
        engine.write(("a",), Record("array", {"x": np.ones(3), "y": np.ones(3)}, {}, {}))
    monkeypatch.undo()
    with pytest.raises(Corrupt):
        engine.read(("a",), "x")
    assert engine.read(("a",), "y").tolist() == [0, 0, 0]
    engine.write(("a",), Record("array", {"x": np.ones(3), "y": np.ones(3)}, {}, {}))
    assert not list(engine.verify())


def test_a_flipped_bit_is_mended(place):
    engine = S3Engine(place, "w")
    engine.write(("a",), Record("array", {"data": np.arange(3)}, {"unit": "V"}, {}))
    for name in ("a/zarr.json", "a/data/zarr.json", "a/data/c.0"):
        TestS3().flip(place, name)
        assert list(engine.verify())
        assert [step.mended for step in engine.repair()] == [True]
        assert engine.read(("a",), "data").tolist() == [0, 1, 2]


def test_prefixes_that_are_no_store_are_left_alone(place):
    obstore.put(objects(place), "thesis.txt", b"all")
    for mode in ("a", "w"):
        with pytest.raises(Foreign, match=r"no zarr\.json"):
            S3Engine(place, mode)
    assert [item["path"] for part in obstore.list(objects(place)) for item in part] == ["thesis.txt"]


def test_a_server_that_says_no_is_a_typed_error(server, monkeypatch):
    with pytest.raises((EngineError, ReadOnly), match="nobucket"):
        S3Engine("nobucket/x", "w")
    with pytest.raises(EngineError, match="bucket"):
        open_store("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    store = S3Store(BUCKET, prefix="x", retry_config={"max_retries": 0})
    with pytest.raises(EngineError, match="object store refused"):
        S3Engine(f"{BUCKET}/x", "a", store=store)


def test_any_object_store_will_do():
    engine = S3Engine("anywhere/data.zarr", "w", store=MemoryStore())
    engine.write(("a",), Record("array", {"data": np.arange(3)}, {}, {}))
    assert list(engine.keys()) == [("a",)]
    assert engine.url == "s3://anywhere/data.zarr"
