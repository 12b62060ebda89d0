"""Scans: every point once, in order, none lost by an interruption, one labelled array per quantity."""

import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import bluesky
import bluesky.plans
import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from ophyd import sim

from datastore_lab import open_store
from datastore_lab.acquire import gathering, scans
from datastore_lab.acquire.axes import Axes
from datastore_lab.acquire.scans import grid
from datastore_lab.errors import AlreadyExists, EngineError, NotStorable, StreamError

WAVELENGTHS, POSITIONS = [500.0, 510.0, 520.0], [0, 1]
IMAGE = np.arange(12, dtype="u2").reshape(3, 4)


def measured(wavelength, position):
    return {"image": IMAGE * np.uint16(position + 1), "power": wavelength / 1000}


@pytest.fixture(params=["memory://", "a.h5", "a.zarr", "a.sqlite"])
def store(request, tmp_path):
    path = request.param if "://" in request.param else tmp_path / request.param
    with open_store(path) as made:
        yield made


def scan_of(store, **options):
    options = {"wavelength": WAVELENGTHS, "position": POSITIONS, "progress": False, **options}
    return grid(to=store, dims={"image": ("y", "x")}, **options)


def test_a_scan_ends_as_labelled_arrays(store):
    metadata = {"units": {"wavelength": "nm", "power": "mW"}, "operator": "Ada"}
    found = scan_of(store, metadata=metadata).run(measured)
    assert found.image.dims == ("wavelength", "position", "y", "x")
    assert found.image.dtype == np.uint16
    assert np.array_equal(found.image.sel(wavelength=510, position=1), IMAGE * 2)
    assert np.array_equal(found.power, np.array(WAVELENGTHS)[:, None] / 1000 * np.ones((1, 2)))
    assert (found.wavelength.attrs, found.power.attrs) == ({"units": "nm"}, {"units": "mW"})
    assert found.attrs == {"operator": "Ada"}
    assert np.diff(found.time.values.reshape(-1)).astype(int).min() >= 0
    assert list(store) == ["scan"]
    assert store.lazy("scan").image.sizes == {"wavelength": 3, "position": 2, "y": 3, "x": 4}


def test_other_tools_read_it(tmp_path):
    with grid(wavelength=WAVELENGTHS, position=POSITIONS, to=tmp_path / "a.h5", progress=False) as scan:
        scan.run(measured)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["scan/image"].shape == (3, 2, 3, 4)
        assert file["scan/image"].dims[0][0][()].tolist() == WAVELENGTHS


def test_a_loop_does_the_same(store):
    for point in scan_of(store):
        assert point.wavelength == point["wavelength"]
        point.save(**measured(**point.values))
    assert store["scan"].sizes["position"] == 2


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_every_point_is_visited_once_and_a_snake_never_jumps(shape, snake):
    axes = Axes({f"a{number}": range(size) for number, size in enumerate(shape)})
    order = list(axes.order(snake=snake))
    assert sorted(order) == list(np.ndindex(*shape))
    if snake:
        steps = np.abs(np.diff(np.array(order), axis=0)).sum(axis=1)
        assert (steps == 1).all()


def test_only_what_changes_is_moved_and_then_settles(store, monkeypatch):
    moves, waits = [], []
    monkeypatch.setattr(scans, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    movers = {
        "wavelength": lambda value: moves.append(("laser", value)),
        "position": lambda value: moves.append(("stage", value)),
    }
    settle = {"wavelength": "50 ms", "position": 0.01}
    scan_of(store, movers=movers, settle=settle, snake=True).run(measured)
    assert moves == [
        ("laser", 500.0),
        ("stage", 0),
        ("stage", 1),
        ("laser", 510.0),
        ("stage", 0),
        ("laser", 520.0),
        ("stage", 1),
    ]
    assert waits == [0.05, 0.01, 0.05, 0.01, 0.05, 0.01]


def test_movable_devices_are_set_and_waited_for(store):
    said = []

    class Status:
        def wait(self):
            said.append("waited")

    class Stage:
        def set(self, value):
            said.append(value)
            return Status()

    grid(position=[0, 1], to=store, movers={"position": Stage()}, progress=False).run(
        lambda position: {"p": position}
    )
    assert said == [0, "waited", 1, "waited"]


def test_an_interrupted_scan_goes_on_at_the_next_point(store):
    seen = []

    def interrupted(wavelength, position):
        seen.append((wavelength, position))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return measured(wavelength, position)

    with pytest.raises(KeyboardInterrupt):
        scan_of(store).run(interrupted)
    again = scan_of(store)
    assert (len(again.done), again.missing) == (3, 3)
    found = again.run(lambda **where: seen.append(tuple(where.values())) or measured(**where))
    assert seen[4:] == [*seen[3:4], (520.0, 0), (520.0, 1)]
    assert np.array_equal(found.image, np.array([IMAGE, IMAGE * 2])[None].repeat(3, 0))
    assert list(store) == ["scan"]


def test_leaving_the_loop_keeps_what_was_saved(store):
    for point in scan_of(store):
        point.save(**measured(**point.values))
        break
    assert len(scan_of(store).done) == 1


KILLED = """
import os, sys
import numpy as np
from datastore_lab.acquire.scans import grid
from datastore_lab.acquire import scans
scans._FLUSH = 0
for number, point in enumerate(grid(x=range(10), y=range(3), to=sys.argv[1], progress=False)):
    if number == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    point.save(value=np.full(5, 10.0 * point.x + point.y))
"""


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_a_kill_costs_the_point_that_was_being_measured(tmp_path, name):
    path = tmp_path / name
    for count in (1, 7, 20):
        subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), path, str(count)], check=False)
    with grid(x=range(10), y=range(3), to=path, progress=False) as scan:
        assert len(scan.done) == 28
        assert int(scan.partial().done.sum()) == 28
        found = scan.run(lambda x, y: {"value": np.full(5, 10.0 * x + y)})
    assert np.array_equal(found.value[..., 0], 10.0 * np.arange(10)[:, None] + np.arange(3))
    with open_store(path, "r") as store:
        assert list(store) == ["scan"]
        assert not store.verify()


def test_errors_end_the_scan_are_left_out_or_tried_again(store):
    tries = []

    def flaky(wavelength, position):
        tries.append((wavelength, position))
        if (wavelength, position) == (510.0, 0) and tries.count((510.0, 0)) < 3:
            raise OSError("no answer")
        return measured(wavelength, position)

    scan = scan_of(store)
    with pytest.raises(OSError, match="no answer") as caught:
        scan.run(flaky)
    assert "wavelength=510.0" in caught.value.__notes__[0]
    assert scan.missing == 4
    assert scan.run(flaky, on_error="skip") is None
    assert (scan.missing, [str(error) for _, error in scan.errors]) == (1, ["no answer", "no answer"])
    partial = scan.partial()
    assert np.isnan(partial.power.sel(wavelength=510, position=0))
    assert int(partial.done.sum()) == 5
    assert scan.run(flaky, on_error="retry").sizes["wavelength"] == 3


def test_an_error_that_stays_is_raised_after_the_last_try(store):
    tries = []

    def failing(wavelength, position):
        tries.append(wavelength)
        raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        scan_of(store).run(failing, on_error="retry", retries=3)
    assert len(tries) == 4


def test_nothing_is_overwritten(store):
    scan_of(store).run(measured)
    with pytest.raises(AlreadyExists, match="finished scan"):
        scan_of(store)
    with pytest.raises(KeyboardInterrupt):
        scan_of(store, name="other").run(interrupt_at(2))
    with pytest.raises(AlreadyExists, match="other axes"):
        scan_of(store, name="other", position=[0, 1, 2])
    store["group/x"] = 1
    with pytest.raises(AlreadyExists, match="a group"):
        scan_of(store, name="group")


def interrupt_at(count):
    seen = []

    def measure(**where):
        seen.append(where)
        if len(seen) > count:
            raise KeyboardInterrupt
        return measured(**where)

    return measure


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ({"power": 1.0}, "same quantities"),
        ({"power": 1.0, "image": IMAGE, "more": 1}, "same quantities"),
        ({"power": 1.0, "image": IMAGE.T}, "shape"),
        ({"power": 1.0, "image": IMAGE + 0.5}, "uint16|u2"),
        ({"power": "high", "image": IMAGE}, "f8"),
    ],
)
def test_points_that_differ_are_refused_by_name(store, second, what):
    points = iter(scan_of(store))
    next(points).save(power=0.5, image=IMAGE)
    point = next(points)
    with pytest.raises((StreamError, NotStorable), match=what):
        point.save(**second)
    point.save(power=1.0, image=IMAGE)
    with pytest.raises(StreamError, match="already"):
        point.save(power=1.0, image=IMAGE)


@pytest.mark.parametrize(
    "axes", [{}, {"x": []}, {"x": [[1]]}, {"x": [1, 1]}, {"x": [1.0, np.nan]}, {"x": 3}, {"x": [object()]}]
)
def test_axes_that_make_no_grid_are_refused(store, axes):
    with pytest.raises(StreamError, match="axis"):
        grid(axes, to=store)


@pytest.mark.parametrize("taken", ["time", "point", "done", "wavelength"])
def test_reserved_quantities_are_refused(store, taken):
    with pytest.raises(StreamError, match=taken):
        next(iter(scan_of(store))).save(**{taken: 1})


@pytest.mark.parametrize(
    "values", [["a", "b"], np.array(["2026-01-01", "2026-01-02"], "M8[D]"), [True, False], [0.1, 1 / 3]]
)
def test_axes_of_every_kind_are_recognised_again(store, values):
    scan = grid(kind=values, to=store, progress=False)
    next(iter(scan)).save(value=1.0)
    again = grid(kind=values, to=store, progress=False)
    assert len(again.done) == 1
    assert again.run(lambda kind: {"value": 2.0}).value.values.tolist() == [1.0, 2.0]


def test_large_scans_are_gathered_outside_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "_LARGE", 1)
    made, plain = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda *given, **more: made.append(1) or plain(*given, **more))
    with grid(wavelength=WAVELENGTHS, position=POSITIONS, to=tmp_path / "a.h5", progress=False) as scan:
        found = scan.run(measured)
    assert len(made) == 3
    assert np.array_equal(found.image[2, 1], IMAGE * 2)


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet", "a.csv"])
def test_files_of_streams_are_refused_before_anything_moves(tmp_path, name):
    with pytest.raises(EngineError, match="HDF5"):
        grid(x=[1, 2], to=tmp_path / name)


def test_a_bluesky_plan_fills_the_same_arrays(store):
    scan = grid(motor1=[0.0, 0.5, 1.0], motor2=[0.0, 1.0], to=store, progress=False)
    engine = bluesky.RunEngine()
    plan = bluesky.plans.grid_scan([sim.det], sim.motor1, 0, 1, 3, sim.motor2, 0, 1, 2, snake_axes=True)
    engine(plan, scan.consume_document)
    found = store["scan"]
    assert isinstance(found, xr.Dataset)
    assert found.det.dims == ("motor1", "motor2")
    assert not np.isnan(found.det).any()


def test_an_event_off_the_grid_is_refused(store):
    scan = grid(x=[0.0, 1.0], to=store, progress=False)
    with pytest.raises(StreamError, match="no point"):
        scan.consume_document("event", {"data": {"x": 3.0, "value": 1.0}})
    with pytest.raises(StreamError, match="lacks x"):
        scan.consume_document("event", {"data": {"value": 1.0}})
