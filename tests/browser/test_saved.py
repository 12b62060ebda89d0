"""A saved notebook, reopened where its kernel is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Lab, Server
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SETUP = (
    "import numpy as np\nfrom datastore_lab import SimulatedDAQ, acquire, browse, open_store\n"
    "from datastore_lab.notebook import panel\nstore = open_store('memory://')\n"
    "store['wave'] = np.arange(5.0)\nstore['<i>sly'] = 3\nbrowse(store)"
)
CELLS = (
    SETUP,
    "run = acquire(SimulatedDAQ(rate=1000))\npanel(run)",
    "run.stop()",
)


def test_a_notebook_from_elsewhere_shows_the_fallback(notebook: Callable[..., Lab], server: Server) -> None:
    lab = notebook(*CELLS)
    expect(lab.page.get_by_role("tree")).to_be_visible()
    lab.command("docmanager:save")
    here = server.root / "test_a_notebook_from_elsewhere_shows_the_fallback.ipynb"
    changed = here.read_text().replace(
        "store = open_store", "kept = open_store"
    )  # so nobody here has signed it
    (server.root / "elsewhere.ipynb").write_text(changed)
    lab.js("async () => { await window.jupyterapp.serviceManager.sessions.shutdownAll(); }")
    lab.visit("elsewhere.ipynb")
    first, second = lab.cell(0), lab.cell(1)
    expect(first.get_by_role("row", name="wave")).to_contain_text("float64")
    expect(first.get_by_role("row", name="<i>sly")).to_be_visible()
    expect(first.get_by_role("tree")).to_have_count(0)
    expect(second.get_by_role("row", name="daq")).to_be_visible()
    lab.shot("saved")


def test_saved_widget_state_shows_the_rows(notebook: Callable[..., Lab]) -> None:
    lab = notebook(*CELLS)
    expect(lab.page.get_by_role("tree")).to_be_visible()
    toggle = "@jupyter-widgets/jupyterlab-manager:saveWidgetState"
    lab.command(toggle)
    lab.command("docmanager:save")
    lab.command(toggle)
    lab.js("async () => { await window.jupyterapp.serviceManager.sessions.shutdownAll(); }")
    lab.visit("test_saved_widget_state_shows_the_rows.ipynb")
    expect(lab.page.get_by_role("treeitem", name="wave")).to_be_visible()
    expect(lab.page.get_by_role("region", name="Live panel")).to_contain_text("daq")
    lab.shot("saved-state")
