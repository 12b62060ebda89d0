"""The tour, as a newcomer runs it: all cells, the live plot, Stop, the tree, a preview."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from harness import Lab
from playwright.sync_api import Locator, expect

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.browser


def wait_for_frames(lab: Lab, panel: Locator, more: int) -> None:
    script = "([el, count]) => Number(el.dataset.frames ?? 0) >= count"
    goal = int(panel.get_attribute("data-frames") or 0) + more
    lab.page.wait_for_function(script, arg=[panel.element_handle(), goal], timeout=30_000)


def expand_to_a_leaf(tree: Locator) -> Locator:
    """Open one expandable row after the other, until an item with data is in sight."""
    tree.focus()
    leaf = tree.locator("[role=treeitem]:not([aria-expanded])").filter(has_text=re.compile(r"[a-z]+\d+"))
    for _ in range(6):
        if leaf.count():
            break
        closed = tree.locator("[role=treeitem][aria-expanded=false]").first
        name = closed.locator(".dlab-name").inner_text()
        closed.locator(".dlab-twisty").click()
        opened = tree.locator("[role=treeitem][aria-expanded=true]")
        expect(opened.filter(has=tree.page.locator(".dlab-name", has_text=name)).first).to_be_visible()
        expect(tree.locator("[aria-busy=true]")).to_have_count(0)
    return leaf.first


@pytest.mark.timeout(400)
def test_the_tour(lab: Lab) -> None:
    folder = lab.server.root / "tour"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "data"))
    lab.open("tour/tour.ipynb").start_all()

    panel = lab.page.get_by_role("region", name=re.compile("Live panel")).first
    panel.wait_for(timeout=90_000)
    panel.scroll_into_view_if_needed()
    wait_for_frames(lab, panel, 10)
    before = panel.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    wait_for_frames(lab, panel, 5)
    assert panel.locator("canvas").first.evaluate("canvas => canvas.toDataURL()") != before
    lab.shot("tour-panel", panel)
    panel.get_by_role("button", name="Stop", exact=True).click()
    expect(panel.locator(".dlab-state")).to_have_text("stopped", timeout=30_000)
    assert panel.locator(".dlab-error:visible").count() == 0

    lab.finish_all(seconds=240)
    tree = lab.page.get_by_role("tree").last
    tree.scroll_into_view_if_needed()
    expect(tree.get_by_role("treeitem").first).to_be_visible()
    expand_to_a_leaf(tree).click()
    preview = lab.page.get_by_role("region", name="Preview").last
    expect(preview.locator("svg path, canvas, pre, .dlab-values td").first).to_be_visible()
    expect(preview.get_by_role("alert")).to_have_count(0)
    lab.shot("tour-tree", lab.page.locator(".dlab-browser").last)


SCENE = """%load_ext datastore_lab
from datastore_lab import HostMonitor, SimulatedCamera, SimulatedDAQ, acquire, browse
from datastore_lab.notebook import panel
"""
RECORD = "run = acquire(SimulatedDAQ(), SimulatedCamera(), HostMonitor(), to='morning.h5')\nrun"


def test_the_picture_of_the_bench(lab: Lab) -> None:
    """Draw the README's picture; UPDATE_IMAGES=1 keeps it."""
    from harness import write_notebook

    write_notebook(lab.server.root / "bench.ipynb", SCENE, RECORD, "browse(run)")
    lab.page.set_viewport_size({"width": 1100, "height": 1400})
    lab.open("bench.ipynb")
    lab.command("application:toggle-left-area")
    lab.run_all()
    panel = lab.page.get_by_role("region", name=re.compile("Live panel"))
    wait_for_frames(lab, panel, 60)
    tree = lab.page.get_by_role("tree")
    lab.page.get_by_role("button", name="Refresh", exact=True).click()
    expect(tree.get_by_role("treeitem", name="camera")).not_to_contain_text("0 B")
    expand_to_a_leaf(tree)
    tree.get_by_role("treeitem", name="camera").click()
    expect(lab.page.get_by_role("region", name="Preview").locator("canvas")).to_be_visible()
    top, bottom = (lab.cell(index).bounding_box() or {} for index in (1, 2))
    height = bottom["y"] + bottom["height"] - top["y"]
    path = lab.shot("bench", clip={"x": top["x"], "y": top["y"], "width": top["width"], "height": height})
    assert path.stat().st_size < 300_000
    if os.environ.get("UPDATE_IMAGES") == "1":
        images = ROOT / "docs/images"
        images.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, images / "bench.png")
