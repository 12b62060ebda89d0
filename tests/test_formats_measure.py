"""Measuring formats on this computer: figures, ranking, room, and what is left behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from datastore_lab import recommend
from datastore_lab.errors import EngineError, NotFound, NotStorable
from datastore_lab.formats import Measurement, Measurements, measure, seconds_to_overflow
from datastore_lab.formats.measured import About

ZEROS = np.zeros((40, 50, 60), "u2")
NOISE = np.random.default_rng(3).integers(0, 256, (40, 50, 60), "u1")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    return measure(ZEROS, rate="10 fps", folder=folder, repeats=2, progress=False), folder


def test_every_format_that_grows_in_files_is_measured(found):
    measured, folder = found
    assert [one.format for one in measured] == [
        "hdf5", "hdf5+gzip", "hdf5+lz4", "zarr", "parquet-folder", "sqlite", "arrow", "parquet", "csv",
    ]  # fmt: skip
    assert list(folder.iterdir()) == []
    for one in (measured.plain, *measured):
        assert one.problem is None
        assert one.nbytes == ZEROS.nbytes
        assert one.write_seconds > 0 < one.read_seconds
        assert one.write_rate == one.nbytes / one.write_seconds
    assert measured.plain.size == ZEROS.nbytes
    assert measured["zarr"].share < 0.05, "zeros are compressed where a format compresses"
    assert measured["hdf5+gzip"].share < 0.3 < 1 <= measured["hdf5"].share
    assert measured["hdf5+lz4"].label == "HDF5, lz4"
    assert measured["arrow"].share >= 1
    assert measured["csv"].size > ZEROS.size, "a digit and a comma per value"
    with pytest.raises(KeyError, match="memory"):
        measured["memory"]


def test_the_table_shows_itself(found):
    measured, _folder = found
    lines = repr(measured).splitlines()
    assert lines[0].split() == ["Format", "Size", "of", "raw", "Write", "Read", "Written", "Read", "again"]
    assert lines[1].startswith("plain file")
    assert len(lines) == 2 + len(measured)
    assert measured._repr_html_().count("<tr>") == len(lines)


def test_what_was_measured_is_said_in_the_answers(found):
    measured, _folder = found
    best = measured.recommend()[0]
    assert best.formats == ("hdf5",), "the tree decides where nothing is too slow"
    assert any("times the 60 kB/s of the stream" in reason for reason in best.reasons)
    assert measured.recommend(compression=True)[0].formats != ("arrow",)
    assert measured.recommend(readers="MATLAB")[0].formats == ("hdf5",)


def _measured(rate=None, **writes):
    """Figures by hand: format=(seconds to write 100 MB, share)."""
    made = [
        Measurement(name, name, 100_000_000, round(share * 1e8), seconds, 0.1)
        for name, (seconds, share) in writes.items()
    ]
    plain = Measurement("plain file", "plain file", 100_000_000, 100_000_000, 0.05, 0.05)
    return Measurements(made, plain, About(("u1", (0, 480, 640)), rate, "1 h"))


def test_a_format_that_is_too_slow_here_comes_behind():
    fast = _measured("30 fps", hdf5=(1.0, 1.0), zarr=(2.0, 0.5)).recommend()
    assert [one.formats for one in fast][:2] == [("hdf5",), ("zarr",)]
    slow = _measured("30 fps", hdf5=(10.0, 1.0), zarr=(2.0, 0.5)).recommend()
    assert slow[0].formats == ("zarr",)
    hdf5 = next(one for one in slow if one.formats == ("hdf5",))
    assert any("10 MB/s" in text and "too slow" in text for text in hdf5.objections)
    assert any("takes 50% of the size in memory, 16.6 GB for 1 h" in text for text in slow[0].reasons)


def test_two_formats_at_once_are_as_slow_as_both_together():
    pair = _measured("30 fps", hdf5=(5.0, 1.0), arrow=(6.0, 1.0)).recommend(safety=True)
    both = next(one for one in pair if one.formats == ("hdf5", "arrow"))
    assert any("9.09 MB/s" in text and "too slow" in text for text in both.objections)


def test_what_has_to_be_small_is_chosen_by_its_size():
    measured = _measured(hdf5=(1.0, 1.0), zarr=(1.0, 0.5))
    assert measured.recommend()[0].formats == ("hdf5",)
    assert measured.recommend(compression=True)[0].formats == ("zarr",)


def test_of_compressions_the_smallest_that_is_fast_enough_is_chosen():
    writes = {"hdf5": (1.0, 1.0), "hdf5+gzip": (5.0, 0.5), "hdf5+lz4": (2.0, 0.8), "arrow": (0.5, 1.0)}
    best = _measured("30 fps", **writes).recommend(compression=True)[0]
    assert best.formats == ("hdf5",)
    assert any(text.startswith("compressed by gzip, writes 20 MB/s") for text in best.reasons)
    assert any("takes 50%" in text for text in best.reasons)
    best = _measured("60 fps", **writes).recommend(compression=True)[0]
    assert any(text.startswith("compressed by lz4, writes 50 MB/s") for text in best.reasons)
    best = _measured("60 fps", **writes).recommend()[0]
    assert any(text.startswith("writes 100 MB/s") for text in best.reasons)


def test_what_a_format_can_not_hold_is_said_and_comes_last(tmp_path):
    wide = np.zeros((2, 200, 200), "u1")
    measured = measure(wide, formats=["csv", "arrow"], folder=tmp_path, repeats=1, progress=False)
    assert "16384 columns" in measured["csv"].problem
    assert "16384 columns" in repr(measured)
    assert measured.recommend()[-1].formats == ("csv",)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sample",
    [
        NOISE,
        np.arange(1000.0),
        {"time": np.arange(100), "wave": np.ones((100, 4), "c16")},
        pd.DataFrame({"x": [1.0, 2.0], "label": ["a", "ß"]}),
    ],
    ids=["frames", "series", "several", "table"],
)
def test_samples_of_all_kinds(sample, tmp_path):
    measured = measure(sample, formats=["hdf5", "csv"], folder=tmp_path, repeats=1, progress=False)
    assert [one.problem for one in measured] == [None, None]
    assert measured.recommend()


def test_of_much_data_a_part_is_taken(tmp_path):
    measured = measure(NOISE, formats="arrow", folder=tmp_path, most="30 kB", repeats=1, progress=False)
    assert measured["arrow"].nbytes == 30_000


@pytest.mark.parametrize(
    ("sample", "options", "error", "named"),
    [
        (np.float64(1), {}, NotStorable, "'data' is a single value"),
        (np.zeros((0, 3)), {}, NotStorable, "at least one row"),
        ({"a": [1], "b": [1, 2]}, {}, NotStorable, r"\[1, 2\]"),
        ({"a": [object()]}, {}, NotStorable, "object"),
        (NOISE, {"formats": "hdf6"}, NotFound, "hdf6"),
        (NOISE, {"formats": "sql"}, EngineError, "'sql' can't be measured"),
        (NOISE, {"formats": "arrow+gzip"}, EngineError, "'arrow.gzip' can't be measured"),
        (NOISE, {"repeats": 0}, ValueError, "repeats=0"),
        (NOISE, {"folder": "/no/such/folder"}, EngineError, "/no/such/folder"),
    ],
)
def test_what_can_not_be_measured_is_refused(sample, options, error, named, tmp_path):
    with pytest.raises(error, match=named):
        measure(sample, **{"folder": tmp_path, "progress": False, **options})
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_never_filled(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    for free in (NOISE.nbytes, usage.total // 20):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: usage._replace(free=free))
        with pytest.raises(EngineError, match=r"take a smaller sample.*or another folder"):
            measure(NOISE, folder=tmp_path, progress=False)
        assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_ends_it(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)

    def others_fill_it(step):
        if step.done == 3:
            monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=0))

    with pytest.raises(EngineError, match="take a smaller sample"):
        measure(NOISE, folder=tmp_path, progress=others_fill_it)
    assert list(tmp_path.iterdir()) == []


def test_steps_are_told(tmp_path):
    steps = []
    measure(NOISE, formats=["arrow"], folder=tmp_path, repeats=2, progress=steps.append)
    assert [(step.label, step.done) for step in steps] == [
        ("plain file", 0), ("Arrow", 1), ("plain file", 2), ("Arrow", 3), ("", 4),
    ]  # fmt: skip
    assert {step.of for step in steps} == {4}


CHILD = """
import sys, numpy as np
from datastore_lab.formats import measure
def tell(step):
    print(step.done, flush=True)
measure(np.zeros((200, 100, 100)), folder=sys.argv[1], repeats=1000, progress=tell)
"""


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.3])
def test_ctrl_c_leaves_nothing_behind(tmp_path, wait):
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.PIPE)  # fmt: skip
    for line in child.stdout:
        if int(line) == 2:
            break
    time.sleep(wait)
    assert len(list(tmp_path.iterdir())) == 1
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("2 GB", "400 MB/s", "300 MB/s"), 20.0),
        ((2_000_000_000, "400 MB/s", 300e6), 20.0),
        (("100 MB", "30 fps", "4.216 MB/s", ("u1", (480, 640))), 20.0),
        (("1 GB", "1 MB/s", "1 MB/s"), float("inf")),
        (("1 GB", "1 MB/s", "2 MB/s"), float("inf")),
        ((0, "2 MB/s", "1 MB/s"), 0.0),
    ],
)
def test_when_a_buffer_is_full(arguments, expected):
    assert seconds_to_overflow(*arguments) == pytest.approx(expected)


def test_recommending_without_measuring_says_nothing_measured():
    assert "on this computer" not in repr(recommend(NOISE, rate="10 fps"))
