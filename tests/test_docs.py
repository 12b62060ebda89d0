"""The documentation: its code runs, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from datastore_lab import HostMonitor, SimulatedCamera, acquire, cli, open_store

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: str, language: str = "python") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no code"
    return found


def test_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    scope: dict[str, object] = {}
    for block in blocks("docs/guide.md"):
        exec(compile(block, "docs/guide.md", "exec"), scope)
    (path,) = (tmp_path / "data").glob("*.h5")
    with open_store(path, "r") as store:
        assert {"host", "daq", "scan"} <= set(store.children())
        assert store.attrs("daq")["sample"] == "Cu-Zn 5"


def test_the_guide_to_devices_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks("docs/devices.md"):
        exec(compile(block, "docs/devices.md", "exec"), scope)
    assert [frame.shape for frame in scope["frames"]] == [(48, 64)] * 4


def test_the_guide_to_keeping_runs(tmp_path):
    """In a process of its own: a cached function needs source that can be found again."""
    script = tmp_path / "guide.py"
    script.write_text("\n\n".join(blocks("docs/keeping.md")))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"lab.h5", "results.h5", "workspace.h5", "workspace.json", "rates.h5"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_the_layout_is_read_by_other_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("lab.h5", "lab.zarr", "lab.parquets"):
        with open_store(place) as store:
            camera = SimulatedCamera(shape=(12, 16))
            acquire(camera, HostMonitor(rate=10), to=store.group("run"), duration=0.5).wait()
            assert store.lazy("run/camera").sizes["time"] > 5
    acquire(SimulatedCamera(shape=(12, 16)), to="run.arrow", duration=0.5).wait()
    for block in blocks("docs/layout.md"):
        exec(compile(block, "docs/layout.md", "exec"), {})


@pytest.mark.slow
def test_the_readme_runs_as_a_notebook(tmp_path):
    sources = blocks("README.md")
    cells = [nbformat.v4.new_code_cell(source, id=f"block-{i}") for i, source in enumerate(sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=100, kernel_name="python3", resources=resources).execute()
    (recorded,) = (tmp_path / "data").glob("*.h5")
    with open_store(recorded, "r") as store:
        assert "lamp on" in list(store.lazy("marks")["text"].values)
    with open_store(tmp_path / "lab.h5", "r") as store:
        assert store["scan/settings"] == {"gain": 2.5, "filters": ["red", "none"]}


def test_the_examples_are_short():
    assert max(len(block.splitlines()) for block in blocks("README.md")) <= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_known(page):
    """Every `datastore-lab ...` in a document is one that the parser takes."""
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"(?:^|`|/)datastore-lab (\w[^`\n#]*)", text, flags=re.MULTILINE):
        arguments = cli.make_parser().parse_args(shlex.split(line))
        assert callable(arguments.command)
