"""`interpolated`: what lies between stored results, and when the function is called."""

from __future__ import annotations

import decimal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.cache import CacheWarning, StorageHDF5, cached, interpolated
from datastore_lab.errors import NotStorable


@pytest.fixture(params=["memory", "hdf5", "zarr", "sqlite"])
def store(request, tmp_path):
    suffix = {"hdf5": "h5"}.get(request.param, request.param)
    with open_store("memory://" if request.param == "memory" else tmp_path / f"c.{suffix}") as opened:
        yield opened


def made(store, function, *points, **options):
    """Decorate a function, call it at some points and watch its calls."""
    calls = []

    def watched(x, *args, **kwargs):
        calls.append(x)
        return function(x, *args, **kwargs)

    found = interpolated(store, ignore_kwargs="calls", **options)(watched)
    for point in points:
        found(point)
    calls.clear()
    return found, calls


def test_between_two_points(store):
    f, calls = made(store, lambda x: x * x, 0.0, 2.0)
    assert [f(0.5), f(1.0), f(1.5)] == [1.0, 2.0, 3.0]
    assert [f(0.0), f(2.0)] == [0.0, 4.0]
    assert calls == []
    assert f.stats() == {"hits": 2, "interpolated": 3, "misses": 2}


def test_never_outside_and_never_too_far(store):
    f, calls = made(store, lambda x: x * x, 0.0, 10.0)
    assert [f(-0.1), f(10.1)] == [(-0.1) ** 2, 10.1**2]
    assert f(1.0) == 10.0
    assert f(1.5) == 2.25
    assert f(9.0) == pytest.approx(2.25 + (100 - 2.25) * 7.5 / 8.5)
    assert calls == [-0.1, 10.1, 1.5]


@pytest.mark.parametrize("distance", [0, 0.5, float("inf")])
def test_the_distance(distance):
    f, calls = made(None, lambda x: x * x, 0.0, 4.0, max_distance=distance)
    f(2.0)
    assert calls == ([] if distance > 1 else [2.0])
    assert f(0.0) == 0.0
    assert calls == ([] if distance > 1 else [2.0])


def test_one_point_is_not_enough():
    f, calls = made(None, lambda x: x * x, 0.0)
    f(0.5)
    assert calls == [0.5]


def test_exact_hits_are_exact(store):
    f, calls = made(store, lambda x: {"a": np.arange(3), "b": [x, (2,)], "c": "text"}, 1, 2)
    computed = f(3)
    calls.clear()
    computed["b"].append(4)
    for _ in range(2):
        found = f(3)
        assert found["b"] == [3, (2,)]
        assert found["a"].dtype == np.arange(3).dtype
        found["b"].append(3)
    assert calls == []
    f(1.5)  # (nothing lies between two dictionaries)
    assert calls == [1.5]


@pytest.mark.parametrize(
    ("low", "high", "middle"),
    [
        (1, 2, 1.5),
        (1, 2.0, 1.5),
        (1 + 0j, 2, 1.5 + 0j),
        (np.int32(1), np.int32(2), np.float64(1.5)),
        (np.float32(1), np.float32(2), np.float32(1.5)),
        (np.array([1, 2]), np.array([2, 4]), np.array([1.5, 3.0])),
        (np.array([1, 2], "f4"), np.array([2, 4], "f4"), np.array([1.5, 3.0], "f4")),
        (np.array([[1j]]), np.array([[2.0 + 0j]]), np.array([[1 + 0.5j]])),
        (np.array(1.0), np.array(2.0), np.array(1.5)),
        (np.array([200], "u1"), np.array([100], "u1"), np.array([150.0])),
    ],
    ids=str,
)
def test_types_of_results(low, high, middle):
    f, calls = made(None, lambda x: high if x else low, 0, 1)
    found = f(0.5)
    assert calls == []
    assert type(found) is type(middle)
    assert getattr(found, "dtype", None) == getattr(middle, "dtype", None)
    assert np.array_equal(found, middle)
    assert np.array_equal(f(0), low)
    assert type(f(0)) is type(low)


@pytest.mark.parametrize(
    "results",
    [
        *[(True, False), ("a", "b"), (None, None), (1, "a"), (10**400, 2), ([1.0], [2.0])],
        *[(np.zeros(2), np.zeros(3)), (np.zeros(2), np.zeros(2, "f4")), (np.array("a"), np.array("b"))],
    ],
    ids=str,
)
def test_results_without_a_between(results):
    f, calls = made(None, lambda x: results[bool(x)], 0, 1)
    f(0.5)
    assert calls == [0.5]


def test_an_interpolated_array_is_the_callers_own_and_a_stored_one_is_protected():
    f, _ = made(None, lambda x: np.full(3, float(x)), 0, 1)
    f(0.5)[:] = 9
    assert f(0.5).tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="read-only"):
        f(0)[:] = 9
    result = f(5)
    result[:] = 7
    assert f(5).tolist() == [5.0] * 3


def test_other_arguments_are_kept_apart(store):
    f, calls = made(store, lambda x, *rest, gain=1: x * gain + sum(rest), 0.0, 1.0)
    f(0.0, 5)
    f(1.0, gain=2)
    assert f(0.5) == 0.5
    calls.clear()
    f(0.5, 5)
    f(0.5, gain=2)
    assert calls == [0.5, 0.5]


def test_keyword_and_default_are_the_same_point():
    calls = []

    @interpolated(ignore_kwargs="calls")
    def f(x, gain=1):
        calls.append(x)
        return x * gain

    assert [f(0), f(x=2), f(1, 1), f(gain=1, x=1), f(x=0)] == [0, 2, 1.0, 1.0, 0]
    assert calls == [0, 2]


@pytest.mark.parametrize("x", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_places_that_are_no_number(x):
    f, calls = made(None, lambda x: 7, 0, 1, max_distance=float("inf"))
    assert [f(x), f(x)] == [7, 7]
    assert calls == [x]
    assert f(0.5) == 7.0
    assert len(calls) == 1


@pytest.mark.parametrize("x", [[1.0], "1", None, True, 1j, np.zeros(2), decimal.Decimal(1)], ids=repr)
def test_what_can_not_be_a_place(x):
    with pytest.raises(NotStorable, match=r"over 'x', which must be one real number, not .*cached"):
        interpolated(lambda x: 1)(x)


def test_what_can_not_be_interpolated():
    async def later(x):
        return x

    for function in (later, int):
        with pytest.raises(NotStorable, match="decorate a plain function"):
            interpolated()(function)
    with pytest.raises(NotStorable, match="no first parameter"):
        interpolated(lambda *x: 1)(1)
    for distance in (-1, float("nan")):
        with pytest.raises(ValueError, match="max_distance"):
            interpolated(max_distance=distance)


class Curve:
    """An object with the storage protocol that can be interpolated."""

    def __init__(self, data, unit, args=None):
        self.data, self.unit, self.args = data, unit, args

    def storage_prepare(self):
        return self.data, {"unit": self.unit}

    @classmethod
    def storage_retrieve(cls, data_array, extra_data):
        return cls(data_array, extra_data["unit"])

    @classmethod
    def create_from_interpolated(cls, data_array, args, extra_args):
        return cls(data_array, extra_args["unit"], args)


def test_objects(store):
    f, calls = made(store, lambda x, k=1: Curve(np.array([x, 2.0 * x]), f"V{x}"), 0, 1)
    low, middle = f(0), f(0.25)
    assert calls == []
    assert type(low) is type(middle) is Curve
    assert (low.data.tolist(), low.unit) == ([0.0, 0.0], "V0")
    assert (middle.data.tolist(), middle.unit, middle.args) == ([0.25, 0.5], "V0", (0.25,))
    assert f(0.75).unit == "V1"


def test_methods():
    class Model:
        def __init__(self, k):
            self.k = k

        @interpolated(max_distance=1)
        def run(self, x):
            return self.k * x * x

    one, other = Model(1), Model(2)
    assert [one.run(0), one.run(2), one.run(1), other.run(1)] == [0, 4, 2.0, 2]


def test_other_code_leaves_points_behind(store):
    def build(power):
        return interpolated(store)(lambda x: x**power)

    first, second = build(2), build(3)
    assert [first(0), first(2), first(1)] == [0, 4, 2.0]
    assert [second(1), second(0), second(2), build(2)(1)] == [1, 0, 8, 2.0]


def test_a_hit_reads_nothing(store, monkeypatch):
    f, calls = made(store, lambda x: np.full(3, x), *map(float, range(5)))
    f(0.5)
    for name in ("read", "read_record", "stat", "children", "keys", "write"):
        if hasattr(store.engine, name):
            monkeypatch.setattr(store.engine, name, None)
    assert f(1.5).tolist() == [1.5] * 3
    assert f(2.0).tolist() == [2.0] * 3
    assert calls == []


def test_a_new_point_does_not_read_the_others_again(store, monkeypatch):
    f, _ = made(store, lambda x: x * x, *range(5))
    other = interpolated(store, ignore_kwargs="calls")(f.__wrapped__)
    other(20)
    read = []
    find = f._core.shelf.find

    def watched(owner, name, **options):
        read.append(name)
        return find(owner, name, **options)

    monkeypatch.setattr(f._core.shelf, "find", watched)
    f(10)
    assert len(read) == 1  # (that of the other function)
    f(0.5)
    f(12)
    assert f(19.5) == pytest.approx(144 + (400 - 144) * 7.5 / 8)
    assert len(read) == 1


def test_points_of_another_process_and_points_that_go(tmp_path):
    path = tmp_path / "c.h5"
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import work
        print(work.f(float(sys.argv[1])))
    """
    (tmp_path / "work.py").write_text(
        "from datastore_lab.cache import interpolated\n"
        f"@interpolated({str(path)!r})\ndef f(x):\n    return x * x\n"
    )

    def ask(x):
        command = [sys.executable, "-c", code, x]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    results = [ask(x) for x in ("0", "2", "1", "-1")]
    assert results == ["0.0", "4.0", "2.0", "1.0"]
    sys.path.insert(0, str(tmp_path))
    try:
        import work

        assert work.f(1.0) == 2.0
        before = [work.f(-0.5), work.f.stats()["misses"]]
        ask("3")
        assert [work.f(2.5), work.f.stats()["misses"]] == [6.5, before[1]]
        work.f._core.shelf.clear()
        assert [work.f(1.0), work.f.stats()["misses"]] == [1.0, before[1] + 1]
        work.f._core.shelf.place.close()
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["work"]


def test_a_store_that_is_read_only_is_told_once(tmp_path):
    with open_store(tmp_path / "c.h5"):
        pass
    with open_store(tmp_path / "c.h5", "r") as store:
        function = interpolated(store)(lambda x: x)
        with pytest.warns(CacheWarning, match="are not kept: .* was opened for reading"):
            assert function(1) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert function(2) == 2


def test_a_result_that_can_not_be_stored(tmp_path):
    f = interpolated()(lambda x: open_store)
    with pytest.warns(CacheWarning, match="is returned, but not kept"):
        assert f(1) is open_store


def test_in_a_storage_beside_cached_functions(tmp_path):
    with StorageHDF5(tmp_path / "s.h5") as storage:
        inner = interpolated(storage)(lambda x: x * x)
        outer = cached(storage)(lambda x: inner(x) + 1)
        assert [outer(0), outer(2), outer(1), outer(1)] == [1, 5, 3.0, 3.0]
        assert len(storage) == 5
