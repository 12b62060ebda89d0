"""``%%cache`` in a real IPython shell and in a real kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cache_cell_runner
import nbformat
import pytest
from cache_cell_traps import SESSIONS
from nbclient import NotebookClient

from datastore_lab import open_store

STEPS = max(map(len, SESSIONS.values()))


@pytest.fixture(scope="module", params=["memory", "hdf5", "zarr"])
def outcomes(request, tmp_path_factory):
    """Run all sessions of all traps; gives ``{trap: [(value, outcome), ...]}``."""
    folder = tmp_path_factory.mktemp("cells")
    found: dict[str, list] = {name: [] for name in SESSIONS}
    with open_store("memory://") as memory:
        for number in range(STEPS):
            if request.param == "memory":
                results = cache_cell_runner.run(memory, number)
            else:
                results = _fresh(folder / f"cache.{'h5' if request.param == 'hdf5' else 'zarr'}", number)
            for name, result in results.items():
                found[name].append(result)
    return found


def _fresh(store: Path, number: int) -> dict:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(number + 1),
        "PYTHONPATH": str(Path(__file__).parent),
        "IPYTHONDIR": str(store.parent / "ipython"),
    }
    command = [sys.executable, cache_cell_runner.__file__, str(store), str(number)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("trap", SESSIONS)
def test_trap(outcomes, trap):
    for number, (session, (value, outcome)) in enumerate(zip(SESSIONS[trap], outcomes[trap], strict=True)):
        assert (value, outcome) == (repr(session.value), session.expected), f"session {number}"


# -- in a shell -------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    made = cache_cell_runner.make_shell()
    made.user_ns["store"] = open_store("memory://")
    yield made
    cache_cell_runner.InteractiveShell.clear_instance()


def test_the_default_store_lies_in_the_working_folder(shell, tmp_path, capsys):
    shell.run_cell("%%cache\ny = 1").raise_error()
    assert (tmp_path / "datastore_lab_cache.h5").exists()
    shell.run_cell("%cache ls").raise_error()
    assert "cells · y · 0 B" in capsys.readouterr().out
    shell.run_cell("%cache clear").raise_error()
    assert "deleted the results of 1 cells" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "place"), [("c.zarr y", "c.zarr"), ("--store c.h5", "c.h5"), ("sub.hdf5 -n fit y", "sub.hdf5")]
)
def test_where_results_lie(shell, tmp_path, line, place):
    shell.run_cell(f"%%cache {line}\ny = 1").raise_error()
    assert (tmp_path / place).exists()
    assert not (tmp_path / "datastore_lab_cache.h5").exists()


def test_a_default_store_that_is_in_use(shell, tmp_path, capsys):
    code = "import sys, datastore_lab as d; s = d.open_store(sys.argv[1]); print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "datastore_lab_cache.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        shell.run_cell("%%cache\ny = 1").raise_error()
        shell.run_cell("%%cache\ny = 1").raise_error()
        other.communicate("\n")
    shown = capsys.readouterr().out
    assert "kept in memory for this session" in shown
    assert "✓ cached" in shown


@pytest.mark.parametrize("place", ["c.h5", "c.zarr"])
def test_a_store_that_is_deleted_while_it_is_open(shell, tmp_path, capsys, place):
    for _ in range(2):
        shell.run_cell(f"%%cache {place}\ny = 1").raise_error()
        assert "● ran" in capsys.readouterr().out
        assert (tmp_path / place).exists()
        shutil.rmtree(tmp_path / place) if place == "c.zarr" else (tmp_path / place).unlink()


def test_what_need_not_be_kept_is_left_out(shell, capsys):
    cell = "%%cache store {}\nimport threading\ny = 1\nbar = threading.Lock()"
    shell.run_cell(cell.format("")).raise_error()
    assert "leave it out with '-x bar'" in capsys.readouterr().out
    for mark in "●✓":
        shell.user_ns.pop("bar", None)
        shell.run_cell(cell.format("-x bar")).raise_error()
        assert mark in capsys.readouterr().out
    assert "bar" not in shell.user_ns


@pytest.mark.parametrize("end", [";", "; # quiet", ";\n\n"])
def test_a_semicolon_keeps_the_value_unshown(shell, capsys, end):
    for _ in range(2):
        shell.run_cell(f"%%cache store -s\nx = 'value'\nx{end}", store_history=True).raise_error()
        assert capsys.readouterr().out == ""
    shell.run_cell("%%cache store -s\nx = 'value'\nx", store_history=True).raise_error()
    assert "'value'" in capsys.readouterr().out
    assert shell.user_ns["_"] == "value"


@pytest.mark.parametrize("line", ["a/b", "1x", "--nonsense", "y =", '"unclosed'])
def test_lines_that_make_no_sense(shell, line, capsys):
    result = shell.run_cell(f"%%cache {line}\ny = 1")
    assert "y" not in shell.user_ns
    assert not result.success or "UsageError" in capsys.readouterr().err


def test_errors_are_raised_once_and_not_kept(shell, capsys):
    for _ in range(2):
        result = shell.run_cell("%%cache store\nprint('before')\ny = 1\n1 / 0")
        assert isinstance(result.error_in_exec, ZeroDivisionError)
        shown = capsys.readouterr().out
        assert shown.count("ZeroDivisionError: division by zero") == 1
        assert shown.startswith("before\n")
    assert shell.user_ns["y"] == 1
    assert list(shell.user_ns["store"].keys_below()) == []
    result = shell.run_cell("%%cache store\ny = (")
    assert isinstance(result.error_in_exec, SyntaxError)
    result = shell.run_cell("%%cache store\nraise KeyboardInterrupt")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert shell.showtraceback.__name__ == "showtraceback"


def test_what_can_not_be_stored_is_named_and_stays(shell, capsys):
    shell.run_cell("%%cache store\nimport threading\nz = 1\ny = threading.Lock()").raise_error()
    assert "the variable 'y' can't be stored" in capsys.readouterr().out
    assert shell.user_ns["y"].acquire()
    assert list(shell.user_ns["store"].keys_below()) == []
    shell.run_cell("%%cache store z\nimport threading\nz = 1\ny = threading.Lock()").raise_error()
    assert "● ran" in capsys.readouterr().out


def test_text_comes_back_in_order_and_once(shell, capsys):
    cell = "import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')\n'v'"
    shell.run_cell(f"%%cache -s store\n{cell}", store_history=True).raise_error()
    first = capsys.readouterr()
    shell.run_cell(f"%%cache -s store\n{cell}", store_history=True).raise_error()
    second = capsys.readouterr()
    assert first.out.splitlines()[:2] == ["a", "c"]
    assert first.out.replace("Out[1]", "Out[n]") == second.out.replace("Out[2]", "Out[n]")
    assert first.err == second.err == "b\n"


def test_a_damaged_variable_is_computed_again(shell, capsys):
    shell.run_cell("%%cache store\nimport numpy as np\ny = np.arange(3.)")
    store = shell.user_ns["store"]
    key = next(key for key in store.keys_below("cache") if key[-1] == "y")
    record = store.record(key)
    store.write(key, record._replace(arrays={"data": record.arrays["data"] + 1}))
    with pytest.warns(UserWarning, match="is damaged"):
        shell.run_cell("%%cache store\nimport numpy as np\ny = np.arange(3.)")
    assert shell.user_ns["y"].tolist() == [0.0, 1.0, 2.0]


# -- in a kernel ------------------------------------------------------------------------------------

SETUP = """
import sys, logging, threading
from datastore_lab import open_store
from datastore_lab.notebook.cache_magic import CacheMagics
get_ipython().register_magics(CacheMagics)
logging.basicConfig(stream=sys.stderr, level="INFO", format="%(message)s")
from IPython.display import HTML, Image, clear_output, display, update_display
store = open_store("replay.h5")
"""

SHOWN = """%%cache -s store
import base64, asyncio
print("first")
display(HTML("<b>second</b>"), metadata={"text/html": {"isolated": True}})
print("third", file=sys.stderr)
logging.info("fourth")
handle = display("old", display_id="here")
worker = threading.Thread(target=print, args=("fifth",)); worker.start(); worker.join(); del worker, handle
await asyncio.sleep(0.01)
update_display("sixth", display_id="here")
Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="))
"""

STATUS = "%%cache store\nprint('x')\nclear_output()\nprint('y')\nvalue = 5\nvalue"


def _execute(folder: Path, cells: list[str], **options) -> list:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in [SETUP, *cells]])
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, **options
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells[1:]]


def _plain(outputs: list) -> list:
    """Give outputs without execution counts, with neighbouring texts of a stream put together."""
    found: list[dict] = []
    for output in outputs:
        item = {name: value for name, value in output.items() if name not in {"execution_count", "transient"}}
        if found and item["output_type"] == "stream" and found[-1].get("name") == item["name"]:
            found[-1]["text"] += item["text"]
        else:
            found.append(item)
    return found


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Run a notebook in two kernels, one after the other."""
    folder = tmp_path_factory.mktemp("kernel")
    return [_execute(folder, [SHOWN, STATUS, SHOWN]) for _ in range(2)]


def test_output_is_replayed_in_order(executed):
    first, _, again = executed[0]
    shown = _plain(first)
    assert [item["output_type"] for item in shown] == [
        "stream", "display_data", "stream", "display_data", "stream", "execute_result",
    ]  # fmt: skip
    assert shown[2]["text"] == "third\nfourth\n"
    assert shown[3]["data"]["text/plain"] == "'sixth'"
    assert shown[4]["text"] == "fifth\n"
    assert "image/png" in shown[5]["data"]
    assert shown[1]["metadata"] == {"text/html": {"isolated": True}}
    assert _plain(again) == shown
    assert _plain(executed[1][0]) == shown


def test_the_status_line_in_a_kernel(executed):
    texts = ["".join(item.get("text", "") for item in _plain(run[1])) for run in executed]
    assert texts[0].startswith("y\n")
    assert "● ran" in texts[0]
    assert "✓ cached" in texts[1]
    assert "· value · " in texts[1]
    assert [item["data"]["text/plain"] for item in executed[1][1] if "data" in item] == ["5"]


def test_an_error_in_a_kernel_is_one_error(tmp_path):
    cells = [
        "%%cache store\nprint('a')\nraise ValueError('no')",
        "%%cache store\nimport asyncio\nawait asyncio.sleep(0)\n1 / 0",
    ]
    for number, outputs in enumerate(_execute(tmp_path, cells, allow_errors=True)):
        errors = [item for item in outputs if item["output_type"] == "error"]
        assert [error["ename"] for error in errors] == [["ValueError"], ["ZeroDivisionError"]][number]
