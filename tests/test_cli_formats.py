"""Choosing formats and exporting tables on the command line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from datastore_lab import cli, open_store


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "lab.h5"
    with open_store(target, "w") as store:
        store["run/daq"] = np.arange(6.0).reshape(3, 2)
        store["run/a/b"] = np.arange(3)
        store["tables", "odd/na:me"] = pd.DataFrame({"x": [1, 2]})
        store["settings"] = {"gain": 2.5}
    return target


def test_formats_are_recommended_in_words(capsys):
    assert cli.main(["formats", "--kind", "series", "--rate", "10 kHz", "--reader", "pandas"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1. Arrow\n")
    assert "+ pandas opens it" in out
    assert cli.main(["formats", "--kind", "images", "--cloud", "--json"]) == 0
    answers = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert answers[0]["formats"] == ["zarr"]
    assert [answer["rank"] for answer in answers] == list(range(1, len(answers) + 1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--kind", "pictures"], "'pictures'"),
        (["--rate", "5 s"], "'5 s'"),
        (["--measure", "LAB::run/daq", "--rate", "5 s", "--repeats", "1"], "'5 s'"),
        (["--measure", "LAB::settings"], "settings"),
        (["--measure", "LAB::nothing"], "nothing"),
    ],
)
def test_questions_that_are_not_understood_are_errors_of_a_line(path, options, named, capsys, tmp_path):
    folder = tmp_path / "measured"
    folder.mkdir()
    options = [option.replace("LAB", str(path)) for option in options]
    assert cli.main(["formats", "--folder", str(folder), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert list(folder.iterdir()) == []


def test_formats_are_measured_with_an_item_of_ones_own(path, capsys, tmp_path):
    folder = tmp_path / "measured"
    folder.mkdir()
    options = ["--measure", f"{path}::run/daq", "--repeats", "1", "--folder", str(folder), "--rate", "1 kHz"]
    assert cli.main(["formats", *options]) == 0
    out = capsys.readouterr().out
    assert "plain file" in out
    assert "on this computer" in out
    assert cli.main(["formats", *options, "--json"]) == 0
    answers = list(map(json.loads, capsys.readouterr().out.splitlines()))
    (arrow,) = (answer for answer in answers if answer["formats"] == ["arrow"])
    assert arrow["measured"][0]["nbytes"] == 48
    assert list(folder.iterdir()) == []


def test_one_item_becomes_one_table(path, tmp_path, capsys):
    assert cli.main(["export", f"{path}::run/daq", str(tmp_path / "daq.csv")]) == 0
    assert (tmp_path / "daq.csv").read_text() == "data[0],data[1]\n0,1\n2,3\n4,5\n"
    assert json.loads((tmp_path / "daq.csv-metadata.json").read_text())["url"] == "daq.csv"
    assert cli.main(["export", f"{path}::run/daq", str(tmp_path / "daq.csv")]) == 2
    assert "exists already" in capsys.readouterr().err
    options = ["--overwrite", "--metadata", "comments"]
    assert cli.main(["export", f"{path}::tables", str(tmp_path / "daq.csv"), *options]) == 0
    text = (tmp_path / "daq.csv").read_text()
    assert text.startswith('# item: ["tables", "odd/na:me"]\n')
    assert text.endswith("x\n1\n2\n")


def test_a_folder_takes_all_tables_and_what_is_none_is_listed(path, tmp_path, capsys):
    assert cli.main(["export", str(path), str(tmp_path / "new" / "out"), "--metadata", "none"]) == 1
    out = capsys.readouterr().out
    assert "left out: settings: " in out
    assert "3 tables written" in out
    names = {entry.name for entry in (tmp_path / "new" / "out").iterdir()}
    assert names == {"run.daq.csv", "run.a.b.csv", "tables.odd_na_me.csv"}
    assert cli.main(["export", f"{path}::run", str(tmp_path / "run"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert {entry.name for entry in (tmp_path / "run").glob("*.csv")} == {"run.daq.csv", "run.a.b.csv"}


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("LAB", "x.csv", "3 tables"),
        ("LAB::settings", "x.csv", "no table"),
        ("LAB::nothing", "x.csv", "nothing"),
        ("LAB", "lab.h5", "not a folder"),
        ("absent.h5", "x.csv", "absent.h5"),
    ],
)
def test_what_can_not_be_exported_is_said(path, tmp_path, source, target, named, capsys):
    code = cli.main(["export", source.replace("LAB", str(path)), str(tmp_path / target)])
    assert code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_two_items_of_one_file_name_are_not_mixed_up(tmp_path, capsys):
    with open_store(tmp_path / "lab.h5", "w") as store:
        store["a/b"], store["a.b"] = np.arange(2), np.arange(3)
    assert cli.main(["export", str(tmp_path / "lab.h5"), str(tmp_path / "out")]) == 2
    assert "same file name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
