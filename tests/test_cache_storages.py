"""Storages: results under their arguments, in memory and in HDF5 files."""

from __future__ import annotations

import datetime as dt
import gc
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.cache import StorageHDF5, StorageMemory, cached
from datastore_lab.errors import AlreadyExists, NotFound, NotStorable, ReadOnly


@pytest.fixture(params=["memory", "hdf5"])
def storage(request, tmp_path):
    with StorageMemory() if request.param == "memory" else StorageHDF5(tmp_path / "results.db") as found:
        yield found


class SimpleResult:
    """Simple object implementing the storage protocol."""

    def __init__(self, data, arg=None):
        self.data = data
        self.arg = arg

    def storage_prepare(self):
        return self.data, {"arg": self.arg}

    @classmethod
    def storage_retrieve(cls, data_array, extra_data):
        return cls(data_array, extra_data["arg"])


def test_the_guide_of_the_function_cache(storage):
    calls = []

    @cached(storage, ignore_kwargs="calls")
    def function(*args, **kwargs):
        calls.append(args)
        return SimpleResult(np.arange(float(args[0])), kwargs.get("arg"))

    made, found = function(3, arg="a"), function(3, arg="a")
    assert calls == [(3,)]
    assert type(found) is SimpleResult
    assert found is not made
    assert found.data.tolist() == [0.0, 1.0, 2.0]
    assert found.arg == "a"
    assert len(storage) == 1


def test_what_was_stored_comes_back(storage):
    storage.store(np.arange(3.0), (1, "a"), {"k": [1, 2]}, {"seconds": 2.5})
    storage.store(None)
    result, args, kwargs, extra = storage.retrieve((1, "a"), {"k": [1, 2]})
    assert (result.tolist(), args, kwargs, extra) == ([0, 1, 2], (1, "a"), {"k": [1, 2]}, {"seconds": 2.5})
    assert storage.retrieve() == (None, (), {}, None)
    assert len(storage) == 2
    assert storage


@pytest.mark.parametrize("other", [(1.0,), (True,), ("1",), ([1],), (), (1, 1)])
def test_arguments_are_typed(storage, other):
    storage.store("one", (1,))
    with pytest.raises(KeyError, match="holds no result for the arguments"):
        storage.retrieve(other)
    with pytest.raises(NotFound):
        storage.retrieve((1,), {"k": 1})


def test_a_result_is_replaced_and_none_is_shared(storage):
    for value in ([1], [2]):
        storage.store(value, ("x",))
        value.append(9)
    assert storage.retrieve(["x"]).result == [2]
    storage.retrieve(["x"]).result.append(3)
    assert storage.retrieve(["x"]).result == [2]
    assert len(storage) == 1


def test_iterate_and_clear_by_keyword(storage):
    for number in range(3):
        storage.store(number * 10, (number,), {"kind": "a" if number else "b"})
    assert sorted(found.result for found in storage.iterdata({"kind": "a"})) == [10, 20]
    assert sorted(found.args for found in storage.iterdata()) == [(0,), (1,), (2,)]
    storage.clear(kwargs={"kind": "a"})
    assert [found.result for found in storage.iterdata()] == [0]
    storage.clear(kwargs={})
    assert len(storage) == 1


def test_clear_what_is_old(storage):
    function = cached(storage)(lambda x: x)
    storage.store(1, ("old",))
    function(1)
    time.sleep(1.1)  # (results of functions are dated to the second)
    limit = time.time()
    storage.store(2, ("new",))
    storage.clear(time_max=limit - 3600)
    assert len(storage) == 3
    storage.clear(time_max=dt.datetime.fromtimestamp(limit, dt.UTC), kwargs={"k": 1})
    assert len(storage) == 3
    storage.clear(time_max=limit)
    assert [found.args for found in storage.iterdata()] == [("new",)]
    assert not function.is_cached(1)
    storage.clear()
    assert len(storage) == 0
    assert isinstance(storage.repack(), int)


def test_two_functions_in_a_storage_do_not_answer_for_each_other(storage):
    one, other = cached(storage)(lambda x: x + 1), cached(storage)(lambda x: x + 2)
    assert (one(1), other(1), one(1)) == (2, 3, 2)
    with pytest.raises(KeyError):
        storage.retrieve((1,))


def test_a_failure_leaves_what_was_there(storage):
    storage.store(1, ("x",))
    with pytest.raises(NotStorable):
        storage.store(open_store, ("x",))
    assert storage.retrieve(("x",)).result == 1


def test_files(tmp_path):
    path = tmp_path / "results.data"
    with pytest.raises(NotFound):
        StorageHDF5(path, readonly=True)
    assert not path.exists()
    with StorageHDF5(path) as storage:
        assert storage.filename == str(path)
        storage.store(1, ("x",))
    with StorageHDF5(path, readonly=True) as storage:
        assert storage.retrieve(("x",)).result == 1
        for change in (lambda: storage.store(2), storage.clear, lambda: storage.clear(time_max=0)):
            with pytest.raises(ReadOnly):
                change()
    with open_store(path) as store:
        assert store[next(store.keys_below("results"))]["args"] == ("x",)
    with StorageHDF5(path, truncate=True) as storage:
        assert len(storage) == 0
    assert StorageMemory().filename is None
    with pytest.raises(ValueError, match="neither truncated nor temporary"):
        StorageHDF5(path, readonly=True, truncate=True)
    with pytest.raises(AlreadyExists, match="is deleted in the end"):
        StorageHDF5(path, temporary=True)
    assert path.exists()


@pytest.mark.parametrize("way", ["close", "collect"])
def test_a_temporary_file_is_gone(tmp_path, way):
    path = tmp_path / "t.h5"
    storage = StorageHDF5(path, temporary=True)
    cached(storage)(lambda x: x)(1)
    storage.store(np.zeros(10), (1,))
    assert path.exists()
    if way == "close":
        storage.close()
        storage.close()
    del storage
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_temporary_file_is_gone_after_the_process(tmp_path, how):
    code = f"""if True:
        import os, signal
        from datastore_lab.cache import StorageHDF5
        storage = StorageHDF5({str(tmp_path / "t.h5")!r}, temporary=True)
        storage.store(1, (1,))
        assert os.path.exists(storage.filename)
        if {how!r} == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if how == "exit" else -signal.SIGKILL), done.stderr
    end = time.monotonic() + 30
    while list(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
