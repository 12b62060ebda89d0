"""Analysis workspaces, in memory, on disk and over other stores."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from datastore_lab import AnalysisWorkspace, LazyAnalysisWorkspace, open_store
from datastore_lab.errors import BadKey, Corrupt, EngineError, Foreign, Locked, NotFound, NotStorable


@pytest.fixture(params=["eager", "lazy", "zarr", "view"])
def ws(request, tmp_path):
    if request.param == "lazy":
        made = LazyAnalysisWorkspace(name="mine")
    elif request.param == "view":
        made = AnalysisWorkspace("mine", open_store(tmp_path / "lab.h5").group("ws"))
    else:
        made = AnalysisWorkspace("mine", None if request.param == "eager" else tmp_path / "lab.zarr")
    with made:
        yield made


def test_store_get_and_describe(ws):
    ws.store("D0", "sttc", np.eye(3), note="STTC, delt=20 ms")
    ws.store("D0", "table", pd.DataFrame({"a": [1, 2]}))
    ws.store("all", "settings", {"delt": 20, "path": ("a", 1)})
    ws.store("all", "cube", xr.DataArray(np.zeros((2, 3)), dims=("x", "y")))
    assert np.array_equal(ws.get("D0", "sttc"), np.eye(3))
    assert ws.get("all", "settings") == {"delt": 20, "path": ("a", 1)}
    assert ws.get("D0", "nothing") is None
    assert ws.get("nowhere", "nothing") is None
    assert sorted(ws.list_namespaces()) == ["D0", "all"]
    assert sorted(ws.list_keys("D0")) == ["sttc", "table"]
    assert ws.list_keys("unknown") == []
    assert {name: sorted(keys) for name, keys in ws.list_keys().items()} == {
        "D0": ["sttc", "table"],
        "all": ["cube", "settings"],
    }
    info = ws.get_info("D0", "sttc")
    assert {key: info[key] for key in ("type", "shape", "dtype", "note")} == {
        "type": "ndarray",
        "shape": (3, 3),
        "dtype": "float64",
        "note": "STTC, delt=20 ms",
    }
    assert info["created_at"].endswith("+00:00")
    assert ws.get_info("D0", "nothing") is None
    described = ws.describe()
    assert described["D0"]["table"]["type"] == "DataFrame"
    assert described["D0"]["table"]["shape"] == (2, 1)
    assert described["all"]["settings"]["shape"] is None
    assert len(ws) == 4
    assert ("D0", "sttc") in ws
    assert "mine" in repr(ws)


def test_listing_loads_no_data(ws, monkeypatch):
    ws.store("D0", "big", np.zeros(1000))

    def refuse(*_args):
        raise AssertionError("payload was read")

    monkeypatch.setattr(ws.backing.engine, "read", refuse)
    ws.describe()
    ws.list_keys()
    ws.get_info("D0", "big")
    assert ws.get("D0", "big", lazy=True).shape == (1000,)


def test_the_description_of_an_item_is_not_mixed_with_its_own_attributes(ws):
    dataset = xr.Dataset({"x": ("t", [1, 2])}, attrs={"note": "of the dataset", "type": "calibration"})
    ws.store("a", "x", dataset, note="of the item")
    xr.testing.assert_identical(ws.get("a", "x"), dataset)
    assert ws.get_info("a", "x")["note"] == "of the item"
    ws.add_note("a", "x", "later")
    xr.testing.assert_identical(ws.get("a", "x"), dataset)
    xr.testing.assert_identical(ws.get("a", "x", lazy=True).load(), dataset)


def test_what_get_gives_is_the_users_own(ws):
    original = np.zeros(3)
    ws.store("a", "b", original)
    original[0] = 1
    ws.get("a", "b")[1] = 2
    assert ws.get("a", "b").tolist() == [0, 0, 0]


def test_insertion_order_is_kept_where_the_engine_keeps_it():
    with LazyAnalysisWorkspace() as lazy:
        for made in (AnalysisWorkspace(), lazy):
            for name in ("z", "a", "m"):
                made.store(name, "k2", 1)
                made.store(name, "k1", 1)
            assert made.list_namespaces() == ["z", "a", "m"]
            assert made.list_keys("z") == ["k2", "k1"]


def test_rename(ws):
    ws.store("a", "x", 1, note="n")
    ws.store("a", "y", 2)
    assert ws.rename("a", "x", "z") is True
    assert ws.get("a", "z") == 1
    assert ws.get_info("a", "z")["note"] == "n"
    with pytest.warns(UserWarning, match="overwrite=True"):
        assert ws.rename("a", "z", "y") is False
    assert ws.rename("a", "z", "z", overwrite=True) is True
    assert ws.get("a", "z") == 1
    assert ws.rename("a", "z", "y", overwrite=True) is True
    assert ws.describe().keys() == {"a"}
    assert ws.get("a", "y") == 1
    with pytest.raises(KeyError, match="'a/gone'"):
        ws.rename("a", "gone", "other")


def test_notes_and_deletion(ws):
    ws.store("a", "x", 1)
    ws.store("a", "y", 1)
    ws.add_note("a", "x", "later")
    assert ws.get_info("a", "x")["note"] == "later"
    assert ws.get("a", "x") == 1
    with pytest.raises(NotFound):
        ws.add_note("a", "gone", "n")
    ws.delete("a", "x")
    assert ws.list_keys("a") == ["y"]
    ws.delete("a", "y")
    assert ws.list_namespaces() == []
    ws.store("b", "x", 1)
    ws.delete("b")
    assert len(ws) == 0
    for arguments in (("b",), ("b", "x")):
        with pytest.raises(NotFound):
            ws.delete(*arguments)


def test_merge(ws):
    other = AnalysisWorkspace("other")
    other.store("a", "x", "theirs", note="note")
    other.store("b", "y", np.arange(3))
    ws.store("a", "x", "mine")
    assert ws.merge_from(other) == {"merged": 1, "skipped": 1, "skipped_keys": [("a", "x")]}
    assert ws.get("a", "x") == "mine"
    assert ws.merge_from(other, overwrite=True) == {"merged": 2, "skipped": 0, "skipped_keys": []}
    assert ws.get("a", "x") == "theirs"
    assert ws.get_info("a", "x")["note"] == "note"


@pytest.mark.parametrize("name", ["__dunder", "a/b", "..", "x" * 300, "ä"])
def test_any_text_is_a_name(ws, name, tmp_path):
    ws.store(name, name, {"v": 1}, note=name)
    ws.save(tmp_path / "saved")
    loaded = AnalysisWorkspace.load(tmp_path / "saved")
    assert loaded.list_keys() == {name: [name]}
    assert loaded.get(name, name) == {"v": 1}


@pytest.mark.parametrize("bad", [("", "a"), ("a", ""), (1, "a"), ("a", None)])
def test_bad_names(ws, bad):
    with pytest.raises(BadKey):
        ws.store(*bad, 1)
    assert len(ws) == 0


def test_save_and_load_the_pair(ws, tmp_path):
    ws.store("D0", "sttc", np.eye(3), note="n")
    ws.store("D0", "when", np.array(["2026-01-01", "NaT"], "M8[ns]"))
    ws.store("all", "mixed", {"z": 1 + 2j, "t": (1, b"raw", None)})
    ws.save(tmp_path / "workspace")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("workspace")) == [
        "workspace.h5",
        "workspace.json",
    ]
    loaded = AnalysisWorkspace.load(tmp_path / "workspace")
    assert (loaded.name, loaded.workspace_id, loaded.created_at) == (ws.name, ws.workspace_id, ws.created_at)
    assert loaded.describe() == ws.describe()
    assert loaded.get("all", "mixed") == {"z": 1 + 2j, "t": (1, b"raw", None)}
    assert AnalysisWorkspace.load_item(tmp_path / "workspace.h5", "D0", "sttc").shape == (3, 3)
    assert AnalysisWorkspace.load_item(tmp_path / "workspace", "D0", "gone") is None
    with h5py.File(tmp_path / "workspace.h5") as file:
        assert np.array_equal(file["D0/sttc/data"][()], np.eye(3))
        assert file["D0/sttc"].attrs["note"] == "n"
    sidecar = json.loads((tmp_path / "workspace.json").read_text())
    assert sidecar["name"] == "mine"
    assert sidecar["items"]["D0"]["sttc"]["shape"] == [3, 3]


def test_saving_over_an_older_pair_and_over_ones_own_file(tmp_path):
    ws = AnalysisWorkspace()
    ws.store("a", "x", 1)
    ws.save(tmp_path / "w")
    ws.store("a", "x", 2)
    ws.save(tmp_path / "w.h5")
    assert AnalysisWorkspace.load(tmp_path / "w").get("a", "x") == 2
    with AnalysisWorkspace(store=tmp_path / "w.h5") as own:
        own.store("a", "y", 3)
        own.save(tmp_path / "w")
        assert own.get("a", "y") == 3
        own.store("a", "z", 4)
    loaded = AnalysisWorkspace.load(tmp_path / "w")
    assert loaded.get("a", "y") == 3
    assert loaded.get("a", "z") == 4


def test_saving_never_takes_a_file_from_somebody_else(tmp_path):
    ws = AnalysisWorkspace()
    ws.store("a", "x", 1)
    with open_store(tmp_path / "raw.h5") as raw:
        raw["hours"] = np.arange(10)
    with pytest.raises(Foreign, match="another name"):
        ws.save(tmp_path / "raw")
    ws.save(tmp_path / "w")
    with AnalysisWorkspace(store=tmp_path / "w.h5") as other:
        with pytest.raises(Locked, match="open in this session"):
            ws.save(tmp_path / "w")
        other.store("b", "y", 2)
    assert AnalysisWorkspace.load(tmp_path / "w").list_keys() == {"a": ["x"], "b": ["y"]}
    with open_store(tmp_path / "raw.h5", "r") as raw:
        assert raw["hours"].size == 10


def test_a_failed_save_leaves_the_old_pair_and_nothing_else(tmp_path, monkeypatch):
    ws = AnalysisWorkspace()
    ws.store("a", "x", np.arange(1000))
    ws.save(tmp_path / "w")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ws.store("a", "y", np.arange(1000))

    def fail(*_args):
        raise EngineError("the disk is gone")

    monkeypatch.setattr(ws.backing.engine, "read", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        ws.save(tmp_path / "w")
    with pytest.raises(OSError, match="missing"):
        ws.save(tmp_path / "missing" / "w")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_that_are_no_workspace(tmp_path):
    with pytest.raises(OSError, match="no saved workspace"):
        AnalysisWorkspace.load(tmp_path / "gone")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(Foreign, match=r"other\.h5"):
        AnalysisWorkspace.load(tmp_path / "other")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"text\.h5"):
        AnalysisWorkspace.load(tmp_path / "text")
    ws = AnalysisWorkspace()
    ws.store("a", "x", np.arange(1000))
    ws.save(tmp_path / "cut")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(Corrupt, match=r"cut\.h5"):
        AnalysisWorkspace.load(tmp_path / "cut")


def test_one_bad_item_is_refused_and_the_rest_is_kept(ws, tmp_path):
    ws.store("a", "good", 1)
    with pytest.raises(NotStorable, match="object"):
        ws.store("a", "bad", object())
    ws.save(tmp_path / "w")
    assert AnalysisWorkspace.load(tmp_path / "w").list_keys() == {"a": ["good"]}


def scratch() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("datastore_lab-scratch-*"))


def test_the_temporary_file_of_a_lazy_workspace_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ws = LazyAnalysisWorkspace()
    ws.store("a", "x", np.zeros(10_000))
    assert len(scratch()) == 1
    ws.close()
    ws.close()
    assert scratch() == []
    ws = LazyAnalysisWorkspace()
    del ws
    assert scratch() == []


def test_a_killed_process_leaves_a_folder_that_the_next_one_removes(tmp_path, monkeypatch):
    code = """
        import os, signal, sys
        from datastore_lab import LazyAnalysisWorkspace
        ws = LazyAnalysisWorkspace()
        ws.store("a", "x", 1)
        print("ready", flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout.readline() == b"ready\n"
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with LazyAnalysisWorkspace():
            assert len(scratch()) == 2
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(scratch()) == 1
    with LazyAnalysisWorkspace():
        assert len(scratch()) == 1
    assert scratch() == []


def test_comparison_namespace():
    assert AnalysisWorkspace.comparison_namespace("a", "b") == "C_a_b"
