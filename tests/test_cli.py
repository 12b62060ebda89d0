"""The command line, in process and as a program."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import h5py
import numpy as np
import pytest

from datastore_lab import __version__, cli, open_store, tour
from datastore_lab.cli import looking
from datastore_lab.errors import NotFound
from datastore_lab.integrity import LAYOUT
from datastore_lab.units import format_size

PROGRAM = [sys.executable, "-m", "datastore_lab.cli"]


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "lab.h5"
    with open_store(target, "w") as store:
        store["run/camera"] = np.zeros((4, 6, 8), "u1")
        store.put("run/gain", 2.5, attrs={"unit": "V", "levels": [1, float("nan")]})
        store["a/b", "e\x1b[2J"] = "odd"
    return target


def run(*arguments, **options):
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"datastore-lab {__version__}\n"


def test_ls_lists_one_level_and_names_only(path, capsys):
    assert cli.main(["ls", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["run", '["a/b"]']
    assert cli.main(["ls", str(path), "run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["run/camera", "run/gain"]


def test_ls_goes_as_deep_as_asked(path, capsys):
    with open_store(path) as store:
        store["run/gain/deep/er"] = 1
    assert cli.main(["ls", str(path), "--depth", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli.main(["ls", "-r", str(path), "run"]) == 0
    assert "run/gain/deep/er" in capsys.readouterr().out.splitlines()
    with pytest.raises(SystemExit):
        cli.main(["ls", str(path), "--depth", "0"])


def test_ls_lists_every_item_with_what_it_holds(path, capsys):
    assert cli.main(["ls", "-lr", str(path)]) == 0
    out = capsys.readouterr().out
    assert "run/camera" in out
    assert "4 x 6 x 8 |u1" in out
    assert "192 B" in out
    assert "\x1b" not in out, "names out of files do not steer the terminal"
    assert len(out.splitlines()) == 4


def test_ls_of_an_empty_store(tmp_path, capsys):
    open_store(tmp_path / "empty.h5").close()
    assert cli.main(["ls", str(tmp_path / "empty.h5")]) == 0
    assert capsys.readouterr().out == "(empty)\n"


def test_info_of_a_store_and_of_an_item(path, capsys):
    assert cli.main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"\nlayout: {LAYOUT}\n" in out
    assert "items: 3" in out
    assert cli.main(["info", str(path), "run/camera"]) == 0
    assert "|u1 (" in capsys.readouterr().out
    assert cli.main(["info", str(path), "run/gain"]) == 0
    out = capsys.readouterr().out
    assert "attribute unit: V" in out
    assert 'attribute levels: [1, {"$float": "nan"}]' in out
    assert cli.main(["info", str(path), "run"]) == 0
    assert "child camera" in capsys.readouterr().out


def test_a_key_is_read_back_as_it_is_listed(path, capsys):
    cli.main(["ls", "-r", str(path)])
    key = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("["))
    assert cli.main(["info", str(path), key]) == 0
    assert "kind: value" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["ls", "info", "verify"])
def test_looking_changes_nothing(path, command, capsys):
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert cli.main([command, str(path)]) == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [[], ["-l"], ["-r"], ["-lr"]])
def test_ls_for_scripts_is_a_json_object_per_line(path, options, capsys):
    assert cli.main(["ls", str(path), "--json", *options]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    found = {tuple(line["key"]): line for line in map(json.loads, out.splitlines())}
    if "-lr" in options:
        assert found["run", "camera"]["arrays"]["data"]["shape"] == [4, 6, 8]
        assert found["run", "camera"]["nbytes"] == 192
    assert (("a/b", "e\x1b[2J") in found) == bool(options and "r" in options[0])


def test_info_for_scripts_is_one_json_object(path, capsys):
    assert cli.main(["info", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["layout"], found["items"]) == ("HDF5", LAYOUT, 3)
    assert found["size on disk"] == path.stat().st_size
    assert cli.main(["info", "--json", str(path), "run/gain"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["attributes"] == {"unit": "V", "levels": [1, {"$float": "nan"}]}


def test_info_of_a_file_of_another_program_names_no_layout(tmp_path, capsys):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1
    assert cli.main(["info", "--json", str(tmp_path / "other.h5")]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] is None
    assert cli.main(["info", str(tmp_path / "other.h5")]) == 0
    assert "layout" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not list locks")
def test_info_names_who_has_the_store_open(tmp_path, name, capsys):
    with open_store(tmp_path / name) as store:
        store["a"] = 1
        done = run("info", tmp_path / name)
        assert f"open for writing by: process {os.getpid()}\n" in done.stdout
        assert "items: 1" in done.stdout
    assert cli.main(["info", str(tmp_path / name)]) == 0
    assert "open for writing" not in capsys.readouterr().out


def test_the_first_line_comes_before_the_second_is_looked_for(capsys):
    def found():
        yield ("first",)
        assert capsys.readouterr().out == "first\n"
        yield ("second",)

    assert looking._print_names(found()) == 0
    assert capsys.readouterr().out == "second\n"


# -- verify, repair, compact ---------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Give a store with one item of three that can't be read whole."""
    bad = np.random.default_rng(2).random(1000)
    with open_store(tmp_path / "lab.zarr") as store:
        store["a"], store["bad\x1b"], store["c"] = np.arange(3), bad, "text"
    needle = bad.tobytes()[6000:6016]
    files = [file for file in (tmp_path / "lab.zarr").rglob("*") if file.is_file()]
    (chunk,) = [file for file in files if needle in file.read_bytes()]
    data = bytearray(chunk.read_bytes())
    at = data.index(needle)
    data[at : at + 8] = bytes(8)  # a single flipped bit would be mended
    chunk.write_bytes(bytes(data))
    return tmp_path / "lab.zarr"


def test_verify_of_what_is_well(path, capsys):
    assert cli.main(["verify", str(path)]) == 0
    assert capsys.readouterr().out == "3 items, 0 problems\n"
    assert cli.main(["verify", "-q", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["verify", str(path), "run/camera"]) == 0
    assert capsys.readouterr().out == "1 item, 0 problems\n"
    assert cli.main(["verify", str(path), "absent"]) == 2


def test_verify_lists_what_is_damaged(damaged, capsys):
    assert cli.main(["verify", str(damaged)]) == 1
    *problems, summary = capsys.readouterr().out.splitlines()
    assert problems
    assert all(line.startswith('["bad\\u001b"]') for line in problems)
    assert summary == f"3 items, {len(problems)} problem{'s' * (len(problems) > 1)}"
    assert cli.main(["verify", "--json", str(damaged)]) == 1
    *problems, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert problems[0]["key"] == ["bad\x1b"]
    assert summary == {"items": 3, "problems": len(problems)}


def test_repair_says_what_it_can_not_mend_and_what_helps(damaged, tmp_path, capsys):
    files = {file: file.read_bytes() for file in damaged.rglob("*") if file.is_file()}
    assert cli.main(["repair", "--dry-run", str(damaged)]) == 1
    assert "nothing was changed" in capsys.readouterr().out
    assert files == {file: file.read_bytes() for file in damaged.rglob("*") if file.is_file()}
    assert cli.main(["repair", str(damaged)]) == 1
    out = capsys.readouterr().out
    assert "not mended: " in out
    assert "datastore-lab copy --skip-damaged" in out
    assert cli.main(["copy", "--skip-damaged", str(damaged), str(tmp_path / "new.h5")]) == 1
    assert "left out: " in capsys.readouterr().out
    with open_store(tmp_path / "new.h5", "r") as store:
        assert sorted(store) == ["a", "c"]


def test_repair_of_what_is_well(path, capsys):
    assert cli.main(["repair", str(path)]) == 0
    assert capsys.readouterr().out == "0 mended, 0 not mended\n"


def test_what_was_changed_is_accepted_only_on_demand(path, capsys, monkeypatch):
    assert run("repair", "--accept", path, stdin=subprocess.DEVNULL).returncode == 2
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    assert cli.main(["repair", "--accept", str(path)]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    monkeypatch.setattr("builtins.input", lambda _question: "y")
    assert cli.main(["repair", "--accept", str(path)]) == 0
    assert cli.main(["repair", "--accept", "--yes", str(path)]) == 0


def test_compact_says_what_it_gave_back(tmp_path, capsys):
    with open_store(tmp_path / "lab.h5") as store:
        store["big"], store["small"] = (
            np.random.default_rng(0).random(100_000),
            np.random.default_rng(1).random(90_000),
        )
    assert cli.main(["compact", "--above", "30%", str(tmp_path / "lab.h5")]) == 0
    assert "left as it is" in capsys.readouterr().out
    with open_store(tmp_path / "lab.h5") as store:
        store["big"] = 1
    before = (tmp_path / "lab.h5").stat().st_size
    assert cli.main(["compact", "--above", "30%", str(tmp_path / "lab.h5")]) == 0
    assert (
        capsys.readouterr().out
        == f"{format_size(before - (tmp_path / 'lab.h5').stat().st_size)} given back\n"
    )
    for wrong in ("x", "200%", "-1"):
        with pytest.raises(SystemExit):
            cli.main(["compact", f"--above={wrong}", str(tmp_path / "lab.h5")])


# -- copy and convert ----------------------------------------------------------------------------------


def test_copy_takes_stores_and_groups(path, tmp_path, capsys):
    assert cli.main(["copy", str(path), str(tmp_path / "new.zarr")]) == 0
    assert capsys.readouterr().out.startswith("3 items copied (")
    assert cli.main(["copy", f"{path}::run", f"{tmp_path / 'new.zarr'}::backup/run"]) == 0
    assert capsys.readouterr().out.startswith("2 items copied (")
    assert cli.main(["copy", f'{path}::["a/b"]', f'{tmp_path / "new.zarr"}::["x/y"]']) == 0
    capsys.readouterr()
    with open_store(tmp_path / "new.zarr", "r") as store:
        assert store["backup/run/gain"] == 2.5
        assert store["x/y", "e\x1b[2J"] == "odd"
    assert cli.main(["copy", str(path), str(tmp_path / "new.zarr")]) == 0
    assert "0 items copied (0 B); 3 already there; compared: the same" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["absent.h5", "lab.h5::absent"])
def test_copy_makes_no_target_for_a_source_that_is_not_there(path, source, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert cli.main(["copy", str(tmp_path / source), str(tmp_path / "new.zarr")]) == 2
    assert "absent" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["copy", "convert"])
def test_nothing_is_copied_into_memory_that_ends_with_the_command(path, command, capsys):
    assert cli.main([command, str(path), "memory://"]) == 2
    assert "gone when this command ends" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ls", "info", "verify"])
def test_a_key_may_follow_the_path_as_copy_takes_it(path, command, capsys):
    assert cli.main([command, str(path), "run"]) == 0
    expected = capsys.readouterr().out
    assert cli.main([command, f"{path}::run"]) == 0
    assert capsys.readouterr().out == expected
    assert "gain" in expected or "run" in expected or "2 items" in expected


def test_copy_keeps_what_is_there_and_says_that_it_differs(path, tmp_path, capsys):
    with open_store(tmp_path / "new.h5") as store:
        store["run/gain"] = 3.5
    assert cli.main(["copy", str(path), str(tmp_path / "new.h5")]) == 1
    assert "problem: run/gain" in capsys.readouterr().out
    assert cli.main(["copy", "-q", "--no-verify", str(path), str(tmp_path / "new.h5")]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["copy", "--overwrite", str(path), str(tmp_path / "new.h5")]) == 0
    with open_store(tmp_path / "new.h5", "r") as store:
        assert store["run/gain"] == 2.5


def test_convert_makes_a_new_store(path, tmp_path, capsys):
    assert cli.main(["convert", str(path), str(tmp_path / "new.zarr")]) == 0
    assert cli.main(["convert", str(path), str(tmp_path / "new.zarr")]) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main(["convert", "--resume", str(path), str(tmp_path / "new.zarr")]) == 0
    capsys.readouterr()
    with open_store(tmp_path / "new.zarr", "r") as store:
        assert store["run/gain"] == 2.5
        assert store.attrs("run/gain")["unit"] == "V"


def test_a_conversion_that_is_refused_leaves_nothing_behind(path, damaged, tmp_path, capsys):
    for source, target in [(path, "new.arrow"), (tmp_path / "absent.h5", "new.zarr"), (path, "new.xyz")]:
        before = sorted(tmp_path.iterdir())
        assert cli.main(["convert", str(source), str(tmp_path / target)]) == 2
        assert sorted(tmp_path.iterdir()) == before
    assert "run/gain" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_bars_are_shown_on_a_terminal_only(path, tmp_path):
    """Run on a terminal of its own, and piped."""
    import pty
    import termios

    for command in (["verify", path], ["convert", path, tmp_path / "new.zarr"]):
        parent, child = pty.openpty()
        termios.tcsetwinsize(child, (24, 80))
        done = subprocess.run(
            [*PROGRAM, *map(str, command)], stdout=subprocess.PIPE, stderr=child, check=True, timeout=60
        )
        os.set_blocking(parent, False)
        assert b"\r" in os.read(parent, 10_000)
        os.close(child)
        os.close(parent)
        assert b"\r" not in done.stdout
    for command in (["verify", path], ["copy", path, tmp_path / "more.zarr"]):
        assert run(*command).stderr == ""


@pytest.mark.parametrize(
    "command", ["ls", "info", "verify", "repair", "compact", "copy", "convert", "export", "formats", "tour"]
)
def test_help_explains_the_command_and_its_exit_status(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "exit status:\n  0  all is well\n" in out
    assert max(map(len, out.splitlines())) <= 112


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupted_copy_says_how_to_go_on(tmp_path):
    with open_store(tmp_path / "lab.h5", durability="process") as store:
        for number in range(20):
            store[f"item {number}"] = np.full(1_000_000, number)
    command = [*PROGRAM, "copy", str(tmp_path / "lab.h5"), str(tmp_path / "new.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ends = time.monotonic() + 60
        while not list((tmp_path / "new.zarr").glob("item*")) and time.monotonic() < ends:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=60)
    if process.returncode == 130:
        assert "copy again to go on" in err
    assert run(*command[3:]).returncode == 0
    with open_store(tmp_path / "new.zarr", "r") as store:
        assert len(store) == 20


def test_formats(capsys):
    assert cli.main(["formats"]) == 0
    out = capsys.readouterr().out
    assert {"HDF5", "Zarr", "CSV"} <= {line.split()[0] for line in out.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ls", "absent.h5"], "absent.h5"),
        (["info", "absent.zarr"], "absent.zarr"),
        (["ls", "lab.xyz"], "lab.xyz"),
        (["ls", "wrong://x"], "wrong"),
    ],
)
def test_errors_are_one_line(arguments, named, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("datastore-lab: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_item_and_a_bad_key_are_errors(path, capsys):
    assert cli.main(["info", str(path), "run/absent"]) == 2
    assert "run/absent" in capsys.readouterr().err
    assert cli.main(["info", str(path), "../x"]) == 2
    assert "../x" in capsys.readouterr().err


def test_a_corrupt_file_is_an_error(tmp_path, capsys):
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert cli.main(["ls", str(tmp_path / "broken.h5")]) == 2
    assert "broken.h5" in capsys.readouterr().err


def test_debug_shows_the_trace(tmp_path):
    with pytest.raises(NotFound):
        cli.main(["--debug", "ls", str(tmp_path / "absent.h5")])


def test_a_closed_pipe_is_no_error(tmp_path):
    with open_store(tmp_path / "many.h5", "w") as store, store.transaction():
        for number in range(3000):
            store[f"item {number} with a rather long name to fill the pipe"] = number
    command = [*PROGRAM, "ls", str(tmp_path / "many.h5")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["ls", "info"])
def test_output_that_can_not_be_written_is_an_error(path, command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, command, str(path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "datastore-lab: [Errno 28] No space left on device\n"


def test_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["dance"])
    assert ended.value.code == 2
    assert "dance" in capsys.readouterr().err


# -- the tour ------------------------------------------------------------------------------------------


def test_the_tour_says_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tour, "_NEEDED", ("nbformat", "no_such_library"))
    for arguments in ([], ["--headless"]):
        assert cli.main(["tour", *arguments, "--folder", str(tmp_path / "new")]) == 2
        err = capsys.readouterr().err
        assert "no_such_library" in err
        assert "pip install 'datastore-lab[lab]'" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_the_tour_says_that_its_notebook_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tour, "NOTEBOOK", "absent.ipynb")
    assert cli.main(["tour", "--headless", "--folder", str(tmp_path)]) == 2
    assert "absent.ipynb" in capsys.readouterr().err


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert cli.main(["tour", "--headless", "--folder", str(folder)]) == 2
        assert "--folder" in capsys.readouterr().err


def _notebook(path: Path, *sources: str) -> Path:
    import nbformat

    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_headless_prints_what_was_made(monkeypatch, tmp_path):
    source = _notebook(
        tmp_path / "short.ipynb",
        "from datastore_lab import open_store\n"
        "with open_store('data.h5') as store: store['a'] = 1\n"
        "with open_store('data.zarr') as store: store['a'], store['b'] = 1, 2",
    )
    original = source.read_bytes()
    monkeypatch.setattr(tour, "find_notebook", lambda: source)
    folder = tmp_path / "work"
    assert tour.execute(folder) == 0
    assert source.read_bytes() == original
    assert {path.name for path in folder.iterdir()} == {"data.h5", "data.zarr", tour.EXECUTED}


HEADLESS = """
import sys
from pathlib import Path
from datastore_lab import cli, tour
tour.find_notebook = lambda: Path(sys.argv[1])
sys.exit(cli.main(["tour", "--headless", "--folder", sys.argv[2]]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_headless_that_is_interrupted_says_so(tmp_path, number):
    started = tmp_path / "started"
    source = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(600)"
    notebook = _notebook(tmp_path / "long.ipynb", source)
    command = [sys.executable, "-c", HEADLESS, str(notebook), str(tmp_path / "work")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        ends = time.monotonic() + 60
        while not started.exists() and time.monotonic() < ends:
            time.sleep(0.05)
        process.send_signal(number)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "datastore-lab: the tour failed: it was interrupted\n" in err
    assert "AssertionError" not in err


def test_headless_names_the_cell_that_fails(monkeypatch, tmp_path, capsys):
    source = _notebook(tmp_path / "short.ipynb", "1", "raise RuntimeError('no light')", "open('x', 'w')")
    monkeypatch.setattr(tour, "find_notebook", lambda: source)
    assert tour.execute(tmp_path / "work") == 1
    err = capsys.readouterr().err
    assert "RuntimeError: no light in the cell 'cell-1'" in err
    assert not (tmp_path / "work" / "x").exists()
    assert (tmp_path / "work" / tour.EXECUTED).exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_tour_starts_jupyterlab_and_ends_with_it(tmp_path):
    folder = tmp_path / "work"
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "run"),
    }
    command = [*PROGRAM, "tour", "--no-browser", "--folder", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as lab:
        try:
            url = lab.stdout.readline().removeprefix("The tour: ").strip()
            status = url.replace(f"lab/tree/{tour.NOTEBOOK}", f"api/contents/{tour.NOTEBOOK}")
            with urllib.request.urlopen(status, timeout=60) as answer:
                assert answer.status == 200
            source = tour.find_notebook()
            assert (folder / tour.NOTEBOOK).read_bytes() == source.read_bytes()
            assert (folder / tour.NOTEBOOK).stat().st_mode & stat.S_IWUSR
        finally:
            lab.send_signal(signal.SIGTERM)
        assert lab.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)


def test_a_notebook_that_is_there_is_kept(monkeypatch, tmp_path, capsys):
    (tmp_path / tour.NOTEBOOK).write_text("mine")
    monkeypatch.setattr(tour, "_serve", lambda work, browser: 0)
    assert cli.main(["tour", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / tour.NOTEBOOK).read_text() == "mine"
    assert "there already" in capsys.readouterr().out


def test_jupyterlab_that_does_not_start_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "jupyterlab.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run("tour", "--no-browser", "--folder", tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 2
    assert "JupyterLab did not start (exit code 3)" in done.stderr
