"""The tour, executed without a browser, and its files opened by other programs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
import xarray
import zarr

from datastore_lab import open_store, tour

pytestmark = pytest.mark.slow


class Made:
    """What one execution of the tour left behind."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "datastore_lab.cli", "tour", "--headless", "--folder", str(folder)]
        began = time.monotonic()
        self.done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        self.seconds = time.monotonic() - began
        assert self.done.returncode == 0, self.done.stderr
        self.folder = folder
        self.notebook = nbformat.read(folder / tour.EXECUTED, as_version=4)
        (self.hdf5,) = (folder / "data").glob("tour_*.h5")
        self.zarr = self.hdf5.with_suffix(".zarr")

    def arrow(self, stream: str) -> Path:
        return self.hdf5.with_suffix(f".{stream}.arrow")

    def outputs(self, cell: str) -> list:
        return next(one.outputs for one in self.notebook.cells if one.id == cell)

    def text(self, cell: str) -> str:
        return "".join(output.text for output in self.outputs(cell) if output.output_type == "stream")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("tour"))


def test_it_takes_less_than_two_minutes(made):
    assert made.seconds < 120


def test_no_cell_failed_or_warned(made):
    outputs = [output for cell in made.notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert all(cell.execution_count for cell in made.notebook.cells if cell.cell_type == "code")


def test_what_it_made_is_printed(made):
    for name in (made.hdf5.name, made.zarr.name, made.arrow("camera").name, made.arrow("daq").name):
        line = next(line for line in made.done.stdout.splitlines() if line.startswith(f"data/{name} "))
        assert re.search(r"\d [kMG]?B +[1-9]\d* +(h5py|zarr|pyarrow)\.", line), line
    assert made.done.stderr == ""


def test_the_face_survives_in_the_saved_notebook(made):
    for cell in ("run", "wait", "keep", "browse"):
        (shown,) = [output.data for output in made.outputs(cell) if "data" in output]
        assert "application/vnd.jupyter.widget-view+json" in shown
        assert "<" in shown["text/html"]
    assert "camera" in next(o.data for o in made.outputs("browse") if "data" in o)["text/html"]


def test_the_second_run_of_the_cached_cell_is_a_replay(made):
    found = re.search(r"found the spot in \d+ frames", made.text("track"))
    assert found is not None
    assert found[0] in made.text("track-again")
    assert "cached" in made.text("track-again")
    assert "cached" not in made.text("track")


def test_nothing_was_lost_and_something_was_recorded(made):
    assert re.search(r"camera [23]\d", made.text("live"))
    with open_store(made.hdf5, "r") as store:
        assert {"host", "camera", "daq", "marks", "analysis"} <= set(store.children())
        assert store.verify() == []
        for name in ("host", "camera", "daq"):
            sequence = store.lazy(name)["sequence"].values
            assert len(sequence) > 100
            assert (np.diff(sequence) == 1).all(), f"{name} has gaps"
        assert "looked into the file" in list(store.lazy("marks")["text"].values)


def test_hdf5_opens_with_plain_h5py(made):
    with h5py.File(made.hdf5) as file:
        frames = file["camera/frame"]
        assert frames.shape[1:] == (240, 320)
        assert frames.dtype == np.uint8
        assert frames[:].any(axis=(1, 2)).all()
        assert file["camera"].attrs["rate"] == 30
        assert file["daq/adc"].attrs["units"] == "V"
        assert file["analysis/spot/track/data"].shape == (len(frames), 2)
        assert "pixels" in file["analysis/spot/track"].attrs["note"]


def test_zarr_opens_with_plain_zarr(made):
    group = zarr.open_group(made.zarr, mode="r")
    with h5py.File(made.hdf5) as file:
        assert np.array_equal(group["camera/frame"][:], file["camera/frame"][:])
        assert np.array_equal(group["analysis/spot/track/data"][:], file["analysis/spot/track/data"][:])
    assert group["camera/frame"].metadata.dimension_names == ("time", "y", "x")
    assert group["camera"].attrs["rate"] == 30


def test_arrow_opens_with_plain_pyarrow(made):
    with pa.memory_map(str(made.arrow("camera"))) as source:
        table = pa.ipc.open_file(source).read_all()
        frames = table["frame"].combine_chunks().to_numpy_ndarray()
    with h5py.File(made.hdf5) as file:
        assert np.array_equal(frames, file["camera/frame"][:])
    with pa.memory_map(str(made.arrow("daq"))) as source:
        assert {"time", "adc"} <= set(pa.ipc.open_file(source).read_all().column_names)


def test_hdf5_and_zarr_open_with_plain_xarray(made):
    with xarray.open_datatree(made.hdf5, engine="h5netcdf", phony_dims="sort") as tree:
        camera = tree["camera"].to_dataset().load()
    with xarray.open_datatree(made.zarr, engine="zarr", consolidated=False) as tree:
        assert np.array_equal(tree["camera/frame"].values, camera["frame"].values)
        assert tree["camera"]["frame"].dims == ("time", "y", "x")
    assert camera["frame"].dims == ("time", "y", "x")
    assert camera["time"].dtype.kind == "M"
    stamps = camera["time"].values
    assert abs(stamps[-1] - np.datetime64("now", "ns")) < np.timedelta64(10, "m")


def test_the_figure_needs_no_network(made):
    data = [output.data for output in made.outputs("figure") if "data" in output]
    loading = next(
        one["application/javascript"] for one in data if "application/vnd.bokehjs_load.v0+json" in one
    )
    assert re.search(r"const js_urls = \[\];", loading)
    assert len(loading) > 500_000, "BokehJS itself is in the notebook"


def test_the_notebook_is_kept_without_outputs():
    source = nbformat.read(tour.find_notebook(), as_version=4)
    nbformat.validate(source)
    assert all(
        not cell.outputs and cell.execution_count is None for cell in source.cells if cell.cell_type == "code"
    )
    assert len({cell.id for cell in source.cells}) == len(source.cells)
