"""``%%cache`` in a real IPython shell and in a real kernel."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cache_cell_runner
import h5py
import nbformat
import pytest
from cache_cell_traps import SESSIONS
from IPython.core.completer import provisionalcompleter
from nbclient import NotebookClient

from datastore_lab import open_store
from datastore_lab.cache import place
from datastore_lab.cache.files import digest_files
from datastore_lab.errors import NotFound, NotStorable
from datastore_lab.notebook.caching import CacheMagics
from datastore_lab.notebook.caching.grammar import COMMANDS, LONG, OPTIONS

pytestmark = pytest.mark.timeout(900)  # (one process for each session of all traps, on four stores)
STEPS = max(map(len, SESSIONS.values()))


@pytest.fixture(scope="module", params=["memory", "hdf5", "zarr", "sqlite"])
def outcomes(request, tmp_path_factory):
    """Run all sessions of all traps; gives ``{trap: [(value, outcome), ...]}``."""
    folder = tmp_path_factory.mktemp("cells")
    found: dict[str, list] = {name: [] for name in SESSIONS}
    with open_store("memory://") as memory:
        for number in range(STEPS):
            if request.param == "memory":
                results = cache_cell_runner.run(memory, number)
            else:
                results = _fresh(
                    folder / f"cache.{'h5' if request.param == 'hdf5' else request.param}", number
                )
            for name, result in results.items():
                found[name].append(result)
    return found


def _fresh(store: Path, number: int) -> dict:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(number + 1),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "IPYTHONDIR": str(store.parent / "ipython"),
    }
    command = [sys.executable, cache_cell_runner.__file__, str(store), str(number)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
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
    assert "1 result ·" in capsys.readouterr().out
    shell.run_cell("%cache clear").raise_error()
    assert "deleted 1 result ·" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("c.zarr y", "c.zarr"),
        ("--store c.h5", "c.h5"),
        ("sub.hdf5 -n fit y", "sub.hdf5"),
        ("c.sqlite -x a -x b y", "c.sqlite"),
        ("{'c'}.h5", "c.h5"),
    ],
)
def test_where_results_lie(shell, tmp_path, line, place):
    shell.run_cell(f"%%cache {line}\ny = 1").raise_error()
    assert (tmp_path / place).exists()
    assert not (tmp_path / "datastore_lab_cache.h5").exists()


def test_a_default_store_that_is_in_use(shell, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(place, "PATIENCE", 0.1)
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


@pytest.mark.parametrize(
    ("kind", "told"), [("newer", "install a newer version"), ("text", "is not an HDF5 file")]
)
@pytest.mark.parametrize("line", ["%%cache c.h5\ny = 1", "%cache ls c.h5"])
def test_a_store_that_can_not_be_opened(shell, tmp_path, capsys, kind, told, line):
    if kind == "text":
        (tmp_path / "c.h5").write_text("nothing of ours")
    else:
        with open_store(tmp_path / "c.h5"):
            pass
        with h5py.File(tmp_path / "c.h5", "r+") as file:
            file.attrs["lab_layout"] = 99
    before = (tmp_path / "c.h5").read_bytes()
    shell.run_cell(line)
    shown = capsys.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.out + shown.err
    assert "y" not in shell.user_ns  # (nothing has run)
    assert (tmp_path / "c.h5").read_bytes() == before


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


@pytest.mark.parametrize("size", [3, 30_000])
def test_a_damaged_variable_is_computed_again(shell, size):
    cell = f"%%cache store\nimport numpy as np\ny = np.arange({size}.)"
    shell.run_cell(cell)
    store = shell.user_ns["store"]
    key = next(key for key in store.keys_below("cache") if store.record(key).arrays.keys() - {"output"})
    record = store.record(key)
    arrays = {name: array + 1 if array.dtype.kind == "f" else array for name, array in record.arrays.items()}
    store.write(key, record._replace(arrays=arrays))
    with pytest.warns(UserWarning, match="is damaged"):
        shell.run_cell(cell)
    assert shell.user_ns["y"].tolist() == list(range(size))


# -- options ----------------------------------------------------------------------------------------


@pytest.fixture
def say(shell, capsys):
    """Run a cell and give what it showed."""

    def run(cell: str) -> str:
        shell.run_cell(cell).raise_error()
        return capsys.readouterr().out

    return run


def test_a_line_that_assigns(shell, say):
    assert "● ran" in say("%cache --store c.h5 y = [v for v in range(3) if v != {1: 1}[1]]")
    shell.user_ns.pop("y")
    assert "✓ cached" in say("%cache --store c.h5 y = [v for v in range(3) if v != {1: 1}[1]]")
    assert shell.user_ns["y"] == [0, 2]
    assert "● ran" in say("%cache store -n other y, z = 1, 2")
    assert "✓ cached" in say("%cache store -n other y, z = 1, 2")
    assert (shell.user_ns["y"], shell.user_ns["z"]) == (1, 2)


def test_the_content_of_a_file_counts(shell, say, tmp_path, capsys):
    file, cell = (
        tmp_path / "data.txt",
        "%%cache store --file data*.txt\nfrom pathlib import Path\ny = Path('data.txt').read_text()",
    )
    for text, mark in [("one", "●"), ("one", "✓"), ("two", "●"), ("one", "✓"), ("two", "✓")]:
        file.write_text(text)
        assert mark in say(cell)
        assert shell.user_ns["y"] == text
    file.write_text("three")
    assert "the file data.txt has other content" in say(f"{cell.replace('store', 'store --dry-run')}")
    file.unlink()
    shell.run_cell(cell)
    assert "no file fits 'data*.txt'" in capsys.readouterr().err


def test_a_file_that_is_changed_at_once_again(tmp_path):
    path = tmp_path / "a"
    seen = set()
    for number in range(50):  # (as fast as the clock of a file system, or faster)
        path.write_bytes(bytes([number]))
        seen.add(digest_files([str(path)])[f"file {path}"])
    assert len(seen) == 50
    with pytest.raises(NotStorable, match="is a folder"):
        digest_files([str(tmp_path)])
    with pytest.raises(NotFound, match="there is no file"):
        digest_files([str(tmp_path / "b")])


def test_named_inputs_count_and_settle_what_can_not_be_seen(shell, say):
    for value, mark in [(1, "●"), (1, "✓"), (2, "●")]:
        shell.user_ns["x"] = value
        assert mark in say("%%cache store -i x\ny = eval('x')")
        assert shell.user_ns["y"] == value
    assert "y" in shell.user_ns


@pytest.mark.parametrize(
    ("code", "options", "told"),
    [
        (
            "import pandas as pd\ny = len(pd.read_csv('a.csv'))",
            "",
            "reads files (pandas.read_csv): --file PATH",
        ),
        ("with open('a.csv') as file:\n    y = file.read()", "", "reads files (open)"),
        ("with open('a.csv') as file:\n    y = file.read()", "--file a.csv", None),
        ("import time\ny = time.time()", "", "reads the clock (time.time): --ttl"),
        ("import time\ny = time.time()", "--ttl 1h", None),
        ("import time\ny = time.time()", "-x time", None),
        ("y = clock()", "", "reads the clock (time.time in clock)"),
        ("import os\ny = os.environ.get('HOME')", "", "reads the environment"),
        ("y = input() if len('a') > 1 else 1", "", "reads what is typed (input): read it in a cell"),
        (
            "import numpy as np\ny = np.random.default_rng().random()",
            "",
            "reads random numbers without a seed",
        ),
        ("import numpy as np\ny = np.random.default_rng(1).random()", "", None),
        ("y = !cat a.csv\ny = list(y)", "", "depends on !cat a.csv: --file PATH"),
        ("%run a.csv\ny = 1", "", "depends on %run a.csv"),
        ("y = !cat a.csv\ny = list(y)", "--file a.csv", None),
    ],
)
def test_what_the_key_does_not_hold_is_told(say, tmp_path, code, options, told):
    (tmp_path / "a.csv").write_text("a = 1\n")
    say("import time\ndef clock():\n    return time.time()")
    shown = say(f"%%cache store {options}\n{code}")
    assert "● ran" in shown
    assert (told in shown) if told else ("reads" not in shown and "depends" not in shown)


def test_a_tag_tells_results_apart(say):
    steps = [("-V 1", "●"), ("-V 2", "●"), ("-V 1", "✓"), ("", "●"), ("--tag 2", "✓")]
    for option, mark in steps:
        assert mark in say(f"%%cache store {option}\ny = 1")


def test_results_grow_old(shell, say):
    cell = "%%cache store {}\ny = 1"
    say(cell.format(""))
    store = shell.user_ns["store"]
    key = next(iter(store.keys_below("cache")))
    store.update(key, {"created": "2020-01-01T00:00:00+00:00"})
    assert "✓ cached" in say(cell.format("--ttl 10000d"))
    assert "  the result is too old" in say(cell.format("--dry-run --ttl 1d"))
    assert "too old" in (text := say(cell.format("--ttl 1d")))
    assert "● ran" in text
    assert "✓ cached just now" in say(cell.format(""))


def test_what_is_quick_is_not_kept(say):
    assert "not stored: faster than 5 s" in say("%%cache store --min-time 5s\ny = 1")
    assert "● ran" in say("%%cache store --min-time 0s\ny = 1")
    assert "✓ cached" in say("%%cache store --min-time 5s\ny = 1")


def test_without_output(say):
    cell = "%%cache store {}\nprint('loud')\ny = 1"
    assert "loud" in say(cell.format("--no-output"))
    assert "loud" not in (text := say(cell.format("--no-output")))
    assert "✓ cached" in text
    assert "loud" in (text := say(cell.format("")))
    assert "● ran" in text
    assert "loud" in (text := say(cell.format("")))
    assert "✓ cached" in text


def test_arrays_are_protected_unless_copied(shell, capsys):
    shell.register_magics(CacheMagics)  # (again, as %reload_ext does)
    cell = "%%cache store {}\nimport numpy as np\na = np.zeros(3)\nb = a[:2]\nd = {{'k': [np.ones(2)]}}"
    for _ in range(2):
        shell.run_cell(cell.format("")).raise_error()
    for change in ("a[0] = 1", "b += 1", "d['k'][0][0] = 5"):
        result = shell.run_cell(change)
        assert isinstance(result.error_in_exec, ValueError)
        told = f"{change[0]} came from the cache and can't be changed in place"
        assert capsys.readouterr().err.count(told) == 1
    shell.run_cell("c = a.copy(); c[0] = 1").raise_error()
    shell.run_cell(cell.format("--copy")).raise_error()
    shell.run_cell("a[0] = 1").raise_error()
    shell.run_cell(cell.format("--copy")).raise_error()
    assert shell.user_ns["a"].tolist() == [0.0, 0.0, 0.0]


def test_a_dry_run_runs_nothing_and_says_why(shell, say):
    shell.user_ns["x"] = 1
    cell = "%%cache store {}\ny = x + 1"
    assert "nothing like this cell is in the cache" in say(cell.format("--dry-run"))
    assert "y" not in shell.user_ns
    say(cell.format(""))
    assert "✓ would hit" in say(cell.format("--dry-run"))
    shell.user_ns["x"] = 5
    assert "x: 1 → 5" in say(cell.format("--dry-run"))
    assert shell.user_ns["y"] == 2


def test_a_module_that_appears_later(shell, say, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    body = "try:\n    import trap_module\n    y = trap_module.K\nexcept ImportError:\n    y = None"
    cell = f"%%cache store\n{body}"
    say(cell)
    (tmp_path / "trap_module.py").write_text("K = 5")
    importlib.invalidate_caches()
    assert "● ran" in say(cell)
    assert shell.user_ns["y"] == 5
    sys.modules.pop("trap_module")


TWICE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import cache_cell_runner
shell = cache_cell_runner.make_shell()
print("ready", flush=True)
input()
cell = "import time\\ntime.sleep(1)\\nfile = open('runs.txt', 'a')\\nfile.write('x')\\nfile.close()\\ny = 1"
shell.run_cell("%%cache twice.h5 y\\n" + cell).raise_error()
print(shell.user_ns["y"], flush=True)
"""


def test_two_processes_run_a_cell_once(tmp_path):
    command = [sys.executable, "-c", TWICE, str(Path(__file__).parent)]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    shown = [process.communicate(timeout=200)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert (tmp_path / "runs.txt").read_text() == "x"
    (runner,) = (process for process, text in zip(both, shown, strict=True) if text.startswith("●"))
    (waiter,) = (text for text in shown if "✓" in text)
    assert waiter.startswith(f"… waiting for process {runner.pid}, which runs this cell\n✓ cached")


# -- commands ---------------------------------------------------------------------------------------


def test_why_in_words(shell, say):
    say("def g(v):\n    return v + 1")
    say("x = 1")
    assert "no cell has missed" in say("%cache why")
    say("%%cache store\ny = g(x)")
    assert "nothing like this cell" in say("%cache why")
    assert "nothing has changed" in say("%cache why y")
    say("def g(v):\n    return v + 2")
    assert say("%cache why y").splitlines() == ["the code of g changed"]
    say("%%cache store\ny = g(x)  # again\nz = 3")
    told = say("%cache why").splitlines()
    assert told[0] == "the cell itself was edited"
    assert "    +z = 3" in told
    assert "the code of g changed" in told


def test_listing_and_showing(shell, say):
    say("x = 41")
    say("%%cache store -n fit\nimport numpy as np\ny = np.full(3, x + 1)\nprint('hello')")
    say("%%cache store\nz = 1")
    listed = say("%cache ls")
    assert "2 results" in listed
    assert "fit" in listed
    assert "y = np.full(3, x + 1)" in listed
    assert say("%cache") == listed
    assert "z = 1" not in say("%cache ls y")
    shown = say("%cache show fit")
    assert "    print('hello')" in shown
    assert "x = 41" in shown
    assert "numpy " in shown
    assert "2 results" in say("%cache size")
    assert "0 hits, 2 misses" in say("%cache stats")


def test_clearing(shell, say):
    for name in "abc":
        say(f"%%cache store\n{name} = 1")
    assert "deleted 1 result" in say("%cache clear b")
    assert "deleted 0 results" in say("%cache clear --older 1d")
    assert "2 results" in say("%cache size")
    assert "deleted 2 results" in say("%cache clear")
    assert list(shell.user_ns["store"].keys_below("cache")) == []


def test_to_clear_one_of_several_stores_it_must_be_named(shell, say, capsys):
    say("%%cache store\na = 1")
    say("%%cache c.h5\na = 1")
    result = shell.run_cell("%cache clear")
    assert "name one with --store" in capsys.readouterr().err + str(result.error_in_exec)
    assert "deleted 1 result" in say("%cache clear --store c.h5")
    assert "1 result" in say("%cache size store")


def test_collecting_what_is_too_much(shell, say):
    say("import numpy as np")
    for number in range(3):
        say(f"%%cache store\na{number} = np.zeros(10_000) + {number}")
    assert "deleted 1 result" in say("%cache gc --max-size 170kB")
    assert "a0" not in (listed := say("%cache ls"))
    assert "a2" in listed
    assert "deleted 2 results" in say("%cache gc --older 0s")


def test_accepting_a_change_of_code(shell, say, capsys):
    say("def g(v):\n    return v + 1")
    say("x = 1")
    say("%%cache store\ny = g(x)")
    say("def g(v):\n    return 1 + v")
    assert "accepted: y" in say("%cache accept y")
    assert "✓ cached" in say("%%cache store\ny = g(x)")
    say("%%cache store --dry-run\ny = g(x) + 0")
    assert "accepted: y" in say("%cache accept")
    assert "✓ cached" in say("%%cache store\ny = g(x) + 0")
    say("x = 7")
    say("%%cache store --dry-run\ny = g(x) + 0")
    result = shell.run_cell("%cache accept")
    shown = capsys.readouterr().err + str(result.error_in_exec)
    assert "only changes of code can be accepted" in shown


def test_completion(shell, tmp_path):
    (tmp_path / "fit.h5").touch()
    shell.user_ns["voltage"] = 1

    def complete(text: str) -> list[str]:
        with provisionalcompleter():
            return [found.text for found in shell.Completer.completions(text, len(text))]

    assert "--min-time" in complete("%%cache --m")
    assert "voltage" in complete("%%cache vol")
    assert "fit.h5" in complete("%%cache --store fi")
    assert "accept" in complete("%cache acc")


def test_the_help_names_every_option():
    text = CacheMagics.cache.__doc__
    assert all(option in text for option in [*OPTIONS, *OPTIONS.values(), *LONG])
    assert all(f"%cache {verb}" in text or verb == "stats" for verb in COMMANDS)
    assert "stats" in text


# -- in a kernel ------------------------------------------------------------------------------------

SETUP = """
import sys, logging, threading
from datastore_lab import open_store
from datastore_lab.notebook.caching import CacheMagics
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
