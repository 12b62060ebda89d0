"""`cached`: what a call gives, what is stored, and what happens when something is not as it should be."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
import warnings
from typing import NamedTuple

import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.cache import CacheWarning, cached, forget_hasher, register_hasher
from datastore_lab.cache.walk import digest
from datastore_lab.errors import NotStorable


@pytest.fixture(params=["memory", "hdf5", "zarr"])
def store(request, tmp_path):
    url = {"memory": "memory://", "hdf5": tmp_path / "c.h5", "zarr": tmp_path / "c.zarr"}[request.param]
    with open_store(url) as opened:
        yield opened


class Point(NamedTuple):
    x: float
    y: float


def test_a_miss_gives_the_object_itself_and_a_hit_an_equal_one(store):
    made = {"a": np.arange(3.0), "n": 1, "t": (1, [2])}
    made["a"].flags.writeable = True
    function = cached(store)(lambda: made)
    function = cached(store, ignore_kwargs="made")(lambda: made)
    assert function() is made
    found = function()
    assert found is not made
    assert found.keys() == made.keys()
    assert np.array_equal(found["a"], made["a"])
    assert type(found["n"]) is int
    assert type(found["t"]) is tuple
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 99
    found["t"][1].append(99)
    made["a"][1] = 77
    assert function()["t"] == (1, [2])
    assert function()["a"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("decorate", [cached, cached(), cached(None), cached("memory://")])
def test_ways_to_write_it(decorate):
    function = decorate(lambda x: x + 1)
    assert function(1) == 2
    assert function.is_cached(1)


@pytest.mark.parametrize("name", ["c.h5", "c.zarr"])
def test_a_path(tmp_path, name):
    @cached(tmp_path / name)
    def double(x):
        return x * 2.0

    assert not (tmp_path / name).exists()
    assert double(np.arange(3)).tolist() == [0.0, 2.0, 4.0]
    assert (tmp_path / name).exists()
    assert double.stats()["entries"] == 1
    double._core.shelf.place.close()


def test_methods_of_a_cached_function(store):
    calls = []

    def work(x, k=1):
        calls.append(x)
        return [x, k]

    work = cached(store, ignore_kwargs="calls")(work)
    assert not work.is_cached(1)
    assert (
        work.why(1)
        == "nothing of test_cache.test_methods_of_a_cached_function.<locals>.work is in the cache yet"
    )
    work(1)
    assert work.is_cached(1)
    assert work.is_cached(x=1, k=1)
    assert work.why(1) == "this call is in the cache"
    assert work.why(1, 2) == "`k` changed; `x` same"
    assert work.force(1) == [1, 1]
    assert calls == [1, 1]
    assert work.invalidate(1)
    assert not work.invalidate(1)
    assert not work.is_cached(1)
    stats = work.stats()
    assert (stats["hits"], stats["misses"], stats["entries"]) == (0, 2, 0)
    assert work.__name__ == "work"
    assert work.__wrapped__(5) == [5, 1]


def test_why_names_what_changed(store):
    def make(step):
        def helper(x):
            return x + step

        def work(x):
            return helper(x)

        return cached(store)(work)

    make(1)(1)
    assert make(2).why(1) == ("`step` in `helper` changed; `x` same")


def test_a_bound_method(store):
    gain = 3

    class Model:
        def __init__(self, k):
            self.k = k

        @cached(store)
        def run(self, x):
            return gain * self.k * x

        @classmethod
        @cached(store)
        def name(cls):
            return cls.__name__

        @staticmethod
        @cached(store)
        def twice(x):
            return 2 * x

    model = Model(2)
    assert model.run(5) == 30
    assert model.run.is_cached(5)
    assert not Model(3).run.is_cached(5)
    assert Model.run(Model(2), x=5) == 30
    assert Model.run._core.counts == {"hits": 1, "misses": 1}
    assert (Model.name(), Model.twice(2)) == ("Model", 4)


def test_exceptions_are_not_kept(store):
    @cached(store)
    def fail():
        raise KeyError("no")

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
    assert fail.stats()["entries"] == 0


def test_a_result_that_cannot_be_stored(store):
    @cached(store)
    def lock():
        return threading.Lock()

    with pytest.warns(CacheWarning, match="the result of .*lock is returned, but not kept"):
        assert lock().acquire()
    assert not lock.is_cached()


@pytest.mark.parametrize("argument", [(x for x in "ab"), sys.stdout, memoryview, iter([])], ids=type)
def test_arguments_without_content(argument):
    function = cached(lambda x: 1)
    if argument is memoryview or type(argument).__name__ == "list_iterator":
        assert function(argument) == 1
        return
    with pytest.raises(NotStorable, match=r"argument 'x' of .*lambda"):
        function(argument)


def test_a_variable_without_content():
    handle = sys.stdout

    def work(x):
        handle.flush()
        return x

    with pytest.raises(NotStorable, match=r"handle in .*work .*ignore_kwargs.*register_hasher"):
        cached(work)(1)
    assert cached(ignore_kwargs="handle")(work)(1) == 1


def test_a_registered_hasher():
    class Instrument:
        def __init__(self, serial):
            self.serial, self.handle = serial, sys.stdout

    function = cached(lambda instrument: instrument.serial)
    with pytest.raises(NotStorable, match=r"argument 'instrument' of .*\.handle"):
        function(Instrument(1))
    register_hasher(Instrument, lambda instrument: instrument.serial)
    try:
        assert [function(Instrument(1)), function(Instrument(2)), function(Instrument(1))] == [1, 2, 1]
        assert function._core.counts == {"hits": 1, "misses": 2}
    finally:
        forget_hasher(Instrument)


def test_what_cannot_be_cached():
    def generate():
        yield 1

    async def generate_later():
        yield 1

    for function, way in [(generate, "as a list"), (generate_later, "as a list"), (Point, "is a class")]:
        with pytest.raises(NotStorable, match=way):
            cached()(function)
    with pytest.raises(NotStorable, match="below @staticmethod"):
        cached(staticmethod(len))
    with pytest.raises(ValueError, match=r"\['lod'\].*\['x', 'loud'\]"):
        cached(ignore_kwargs="lod")(lambda x, loud: x)
    with pytest.raises(TypeError, match="missing a required argument"):
        cached(lambda x: x)()


def test_a_damaged_entry_is_computed_again(store):
    function = cached(store)(lambda: np.arange(4.0))
    function()
    key = next(key for key in store.keys_below("cache") if key[1:2] not in {(), ("code",)})
    record = store.record(key)
    store.write(key, record._replace(arrays={"data": np.arange(4.0) + 1}))
    with pytest.warns(CacheWarning, match="is damaged and will be computed again"):
        assert function().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert function().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert function._core.counts == {"hits": 1, "misses": 2}


def test_flipped_bytes_on_disk(tmp_path):
    path = tmp_path / "c.h5"
    marker = np.frombuffer(b"needle-in-the-file" * 10, "u1")
    code = f"""if True:
        import sys, numpy as np
        from datastore_lab.cache import cached
        function = cached({str(path)!r})(lambda k: np.frombuffer(b"needle-in-the-file" * k, "u1").copy())
        value = function(10)
        print(bytes(value) == b"needle-in-the-file" * 10, function._core.counts)
    """
    command = [sys.executable, "-c", code]
    assert "'misses': 1" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "'hits': 1" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    raw = path.read_bytes()
    assert raw.count(marker.tobytes()) == 1
    path.write_bytes(raw.replace(marker.tobytes(), b"X" + marker.tobytes()[1:]))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "True" in done.stdout
    assert "'misses': 1" in done.stdout
    assert "is damaged" in done.stderr


def test_a_store_that_is_read_only(tmp_path):
    with open_store(tmp_path / "c.h5") as store:
        cached(store)(_square)(3)
    with open_store(tmp_path / "c.h5", "r") as store:
        function = cached(store)(_square)
        assert function(3) == 9
        with pytest.warns(CacheWarning, match="opened for reading"):
            assert function(4) == 16
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert function(5) == 25
        assert function._core.counts == {"hits": 1, "misses": 2}


def _square(x):
    return x * x


def test_threads_compute_a_result_once(store):
    calls, barrier = [], threading.Barrier(8)
    function = cached(store, ignore_kwargs=["calls"])(lambda x: calls.append(x) or [x])
    results = []

    def ask():
        barrier.wait()
        results.append(function(1))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[1]] * 8
    assert calls == [1]


def test_entries_are_plain_datasets(tmp_path):
    import h5py
    import zarr

    for name in ("c.h5", "c.zarr"):
        with open_store(tmp_path / name) as store:
            cached(store)(_ramp)(3, unit="V")
    owner = f"{__name__}._ramp"
    with h5py.File(tmp_path / "c.h5") as file:
        (entry,) = file["cache"][owner].values()
        assert entry["data"][:].tolist() == [0.0, 1.0, 2.0]
        assert entry.attrs["function"] == owner
        assert entry.attrs["arguments"] == "n=3, unit='V'"
        about = json.loads(entry.attrs["entry"].removeprefix("json:"))
        assert about["nbytes"] == 24
        assert entry.attrs["created"].endswith("+00:00")
        assert set(about["parts"]) == {"argument n", "argument unit", "version"}
        assert about["code"] in file["cache/code"]
    (entry,) = dict(zarr.open_group(tmp_path / "c.zarr", mode="r")["cache"].groups())[owner].groups()
    assert entry[1]["data"][:].tolist() == [0.0, 1.0, 2.0]
    assert entry[1].attrs["entry"]["nbytes"] == 24


def _ramp(n, unit):
    return np.arange(float(n))


def test_a_module_edited_on_disk_but_not_imported_again(tmp_path, monkeypatch):
    (tmp_path / "bench_helpers.py").write_text("def g(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import bench_helpers

    store = open_store("memory://")
    try:
        (tmp_path / "bench_helpers.py").write_text("def g(x):\n    return x + 2\n\n")
        assert cached(store)(lambda x: bench_helpers.g(x))(1) == 2
        del sys.modules["bench_helpers"]
        import bench_helpers

        assert cached(store)(lambda x: bench_helpers.g(x))(1) == 3
    finally:
        sys.modules.pop("bench_helpers", None)


def test_code_without_source(store):
    space: dict = {"cached": cached, "store": store}
    exec("def g(x):\n    return x + 1\nf = cached(store)(lambda x: g(x))", space)
    assert (space["f"](1), space["f"](1), space["f"]._core.counts) == (2, 2, {"hits": 1, "misses": 1})
    exec("def g(x):\n    return x + 2", space)
    assert space["f"](1) == 3


def test_edits_that_take_effect_in_the_session(store):
    space: dict = {"k": 1, "table": {"a": 1}}
    exec("def h(x):\n    return x\ndef g(x, n=0):\n    return h(x) + k + table['a'] + n\n", space)
    exec("def f(x):\n    return g(x)", space)
    function = cached(store)(space["f"])
    seen = [function(1)]
    for change in ["k = 2", "table['a'] = 5", "g.__defaults__ = (10,)", "def h(x):\n    return -x", "k = 1"]:
        exec(change, space)
        seen.append(function(1))
        assert seen[-1] == space["f"](1)
    assert seen == [3, 4, 8, 18, 16, 15]
    assert function._core.counts == {"hits": 0, "misses": 6}


def test_a_class_patched_in_the_session(store):
    class Model:
        gain = 1

        def run(self):
            return self.gain

    function = cached(store)(lambda: Model().run())
    assert function() == 1
    Model.gain = 2
    assert function() == 2
    Model.run = lambda self: 7
    assert function() == 7
    Model.extra = lambda self: 7
    assert function() == 7
    assert function._core.counts["misses"] == 4


def test_layout_in_memory_does_not_matter():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(300, 40, 100))
    for other in [np.asfortranarray(array), array.copy()[...], np.repeat(array, 2, axis=1)[:, ::2]]:
        assert digest(other) == digest(array)
    assert digest(array[::-1]) != digest(array)
    assert digest(np.broadcast_to(1.0, (5000, 300))) == digest(np.ones((5000, 300)))
    padded = np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    dirty = np.frombuffer(b"\xff" * padded.nbytes, padded.dtype).copy()
    dirty["a"], dirty["b"] = 0, 0.0
    assert digest(padded) == digest(dirty)
    long, other = np.ones(3, np.longdouble), np.empty(3, np.longdouble)
    other.view("u1")[:] = 255
    other[:] = 1
    assert digest(long) == digest(other)


def test_values_that_hold_themselves():
    loop: list = [1]
    loop.append(loop)
    other: list = [1]
    other.append([1, other])
    assert digest(loop) == digest(loop)
    assert digest(loop) != digest(other)
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NotStorable, match="nested deeper"):
        digest(deep)


def test_a_partial_and_a_callable_object(store):
    class Scale:
        def __init__(self, k):
            self.k = k

        def __call__(self, x):
            return self.k * x

    function = cached(store)(lambda h, x: h(x))
    assert [function(Scale(2), 3), function(Scale(3), 3), function(functools.partial(pow, 2), 3)] == [6, 9, 8]
    assert function(Scale(2), 3) == 6
    assert function._core.counts == {"hits": 1, "misses": 3}


def test_names_asked_for_at_run_time():
    k = 1

    def look():
        return eval("k", {"k": k})

    with pytest.raises(NotStorable, match=r"look uses eval\(\).*'eval'.*ignore_kwargs"):
        cached(look)()
    assert cached(ignore_kwargs="eval")(look)() == 1


def test_a_store_as_an_argument(store):
    with pytest.raises(NotStorable, match="is a store, whose content may change"):
        cached(lambda s: list(s))(store)
