"""The package as a whole: what an import loads, what is public, who imports whom, what a wheel holds."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import datastore_lab
from datastore_lab.registry import CODECS, DEVICES, ENGINES, WRITERS

ROOT = Path(__file__).parent.parent
HEAVY = {
    "IPython",
    "anywidget",
    "bokeh",
    "dask",
    "h5netcdf",
    "h5py",
    "ipykernel",
    "ipywidgets",
    "nbclient",
    "numpy",
    "pandas",
    "psutil",
    "pyarrow",
    "pymysql",
    "psycopg",
    "sqlalchemy",
    "xarray",
    "xxhash",
    "zarr",
}


def loaded_by(code: str) -> set[str]:
    """Name the top-level modules that a fresh process has loaded after some code."""
    script = f"import json, sys\n{code}\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import datastore_lab",
        "import datastore_lab; dir(datastore_lab); repr(datastore_lab)",
        "import datastore_lab.errors, datastore_lab.keys, datastore_lab.records, datastore_lab.registry",
        "import datastore_lab.units, datastore_lab.cli, datastore_lab.tour",
        "from datastore_lab import recommend, buffer_size, run_name; buffer_size('4 MB/s', 5); run_name()",
    ],
)
def test_what_needs_no_heavy_library_loads_none(code):
    assert loaded_by(code) & HEAVY == set()


def test_a_heavy_library_would_be_seen():
    assert loaded_by("import numpy") & HEAVY == {"numpy"}


@pytest.mark.parametrize("name", datastore_lab.__all__)
def test_public_names_resolve_and_are_described(name):
    part = getattr(datastore_lab, name)
    assert name in dir(datastore_lab)
    assert name == "__version__" or (part.__doc__ or "").strip(), f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="opem_store"):
        datastore_lab.opem_store  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("datastore-lab") == datastore_lab.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", datastore_lab.__version__)


@pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry in (ENGINES, CODECS, DEVICES, WRITERS) for name in registry.builtin()],
)
def test_built_in_parts_load(registry, name):
    assert callable(registry.load(name))


def test_the_console_script_is_declared():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    (script,) = [point for point in scripts if point.name == "datastore-lab"]
    assert callable(script.load())


def test_entry_points_of_other_distributions_are_found(tmp_path, monkeypatch):
    """A distribution on the path adds an engine, a codec, a device and a writer by name."""
    (tmp_path / "lab_plugin.py").write_text("class Part:\n    pass\n")
    info = tmp_path / "lab_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-plugin\nVersion: 1.0\n")
    groups = ("engines", "codecs", "devices", "writers")
    points = "\n".join(f"[datastore_lab.{group}]\nx-part = lab_plugin:Part\n" for group in groups)
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (ENGINES, CODECS, DEVICES, WRITERS):
        part = registry.find("x-part")
        assert part is not None
        assert part.__name__ == "Part"
        registry._objects.pop("x-part")


def test_the_import_contracts_hold():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b0 broken", done.stdout)


def test_every_module_is_on_a_floor():
    """A module that no contract names could import what it likes."""
    contract = (
        (ROOT / ".importlinter").read_text(encoding="utf-8").partition("[importlinter:contract:engines]")[0]
    )
    named = set(re.findall(r"datastore_lab\.(\w+)", contract))
    package = ROOT / "datastore_lab"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert modules | rooms == named


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []


def test_every_extra_has_its_code():
    """An extra comes with the code that needs it: a new one belongs into this list with its test."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == {
        "lab",
        "dask",
        "s3",
        "sql",
        "bluesky",
        "visa",
        "serial",
        "mqtt",
        "lsl",
        "epics",
        "basler",
        "devices",
        "test",
        "bench",
        "dev",
        "all",
    }


def test_no_absolute_path_and_no_address_of_a_registry_is_kept():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(
        b"\0"
    )
    places = re.compile(
        rb"(?<![\w./])/(?:home|root|Users|work)/\w|--(?:extra-)?index-url|\"resolved\": *\"http"
    )
    own = Path(__file__).relative_to(ROOT).as_posix()
    found = []
    for name in (file.decode() for file in files if file):
        path = ROOT / name
        if name != own and path.is_file() and places.search(path.read_bytes()):
            found.append(name)
    assert found == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from the source distribution, with the build backend that is installed."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_holds_the_front_end_the_notebook_and_the_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for module in ("tree", "live"):
        assert f"datastore_lab/notebook/static/{module}.js" in names
        assert f"datastore_lab/notebook/static/{module}.css" in names
    assert "datastore_lab/notebook/tour.ipynb" in names
    assert "datastore_lab/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "widgets/", "benchmarks/"))]
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "datastore_lab").rglob("*.py")}
    assert sources <= names


def test_an_unpacked_wheel_works_outside_of_the_clone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import datastore_lab; from datastore_lab import tour, open_store; "
        "open_store('memory://')['a'] = 1; "
        "print(datastore_lab.__file__); print(tour.find_notebook())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    module, notebook = done.stdout.splitlines()
    assert Path(module).is_relative_to(tmp_path)
    assert Path(notebook).is_relative_to(tmp_path)
    assert Path(notebook).read_bytes() == (ROOT / "notebooks" / "tour.ipynb").read_bytes()
