"""The HDF5 engine: what it keeps, what other programs see of it, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.errors import NotFound
from datastore_lab.records import ArrayInfo, Record, Stat


def record(value=0, **meta):
    return Record("array", {"data": np.full(4, value)}, meta, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


@pytest.fixture
def engine(path):
    engine = HDF5Engine(path)
    yield engine
    engine.close()


def test_record_comes_back_after_reopening(path):
    arrays = {"signal": np.arange(12.0).reshape(4, 3), "time": np.arange(4)}
    meta = {"none": None, "one": 1, "real": 1.0, "true": True, "text": "", "list": [1, 1.0], "big": 10**30}
    with_dims = {"signal": ("time", "channel"), "time": ("time",)}
    engine = HDF5Engine(path)
    engine.write(("a", "b"), Record("table", arrays, meta, with_dims))
    engine.close()
    again = HDF5Engine(path, "r")
    stat = again.stat(("a", "b"))
    assert repr(stat.meta) == repr(meta)
    assert stat.kind == "table"
    assert {name: info.dims for name, info in stat.arrays.items()} == with_dims
    assert np.array_equal(again.read(("a", "b"), "signal", (slice(None, None, -2), 1)), [10.0, 4.0])
    again.close()


def delete_write_and_fail(engine):
    with engine.transaction():
        engine.delete(("kept",))
        engine.write(("new",), record(2))
        raise ZeroDivisionError


def test_failed_transaction_leaves_nothing(engine):
    engine.write(("kept",), record(1))
    with pytest.raises(ZeroDivisionError):
        delete_write_and_fail(engine)
    assert list(engine.keys()) == [("kept",)]
    with pytest.raises(NotFound):
        engine.stat(("new",))


def test_rows_appended_show_after_flush(engine, path):
    spec = Stat("stream", {"adc": ArrayInfo("<i2", (0, 2), ("time", "channel"), 0, None)}, {"rate": 10.0})
    stream = engine.append(("run",), spec)
    reader = HDF5Engine(path, "r")
    stream.extend({"adc": np.ones((3, 2), "i2")})
    assert reader.stat(("run",)).arrays["adc"].shape == (0, 2)
    stream.flush()
    assert reader.stat(("run",)).arrays["adc"].shape == (3, 2)
    stream.close({"done": True})
    assert reader.stat(("run",)).meta["done"] is True
    assert list(reader.verify()) == []
    reader.close()
