"""The tree browser in JupyterLab: rows, keyboard, preview, errors, themes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Lab
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

STORE = """
import numpy as np
from datastore_lab import browse, open_store
from datastore_lab.records import Record
store = open_store("memory://")
t = np.linspace(0, 12, 200_000)
attrs = {"units": "V", "note": "<img src=x onerror=alert(1)>"}
store.put("run/wave", np.sin(t) * np.exp(-t / 6), attrs=attrs)
store["run/picture"] = np.hypot(*np.mgrid[-60:60, -80:80]).astype("u1")
store["run/settings"] = {"gain": 2.5, "channels": [1, 2, 3], "who": "<b>Ada</b>"}
two = {"up": np.cumsum(np.ones(500)), "down": -np.cumsum(np.ones(500))}
store.write("run/two", Record("stream", two, {"rate": 100.0}, {"up": ("sample",), "down": ("sample",)}))
names = {"name": np.array(["ann", "bob"], "T"), "code": np.array(["x", "<y>"], "T")}
store.write("people", Record("table", names, {}, {}))
for index in range(5): store[f"trials/{index:03d}"] = np.arange(index + 1)
"""


def tree(lab: Lab, nth: int = 0) -> Locator:
    return lab.page.get_by_role("tree").nth(nth)


def row(lab: Lab, name: str) -> Locator:
    return tree(lab).get_by_role("treeitem").filter(has=lab.page.locator(f".dlab-name:text-is('{name}')"))


def preview(lab: Lab) -> Locator:
    return lab.page.get_by_role("region", name="Preview")


def active(lab: Lab) -> str:
    script = """tree => document.getElementById(tree.getAttribute('aria-activedescendant'))
        ?.querySelector('.dlab-name').textContent ?? ''"""
    return str(tree(lab).evaluate(script))


def press(lab: Lab, keys: str, name: str) -> None:
    for key in keys.split():
        lab.page.keyboard.press(key)
    expect(tree(lab).locator(".dlab-row[data-active] .dlab-name")).to_have_text(name)
    assert active(lab) == name


def test_expands_and_shows_a_line(notebook: Callable[..., Lab]) -> None:
    lab = notebook(STORE + "browse(store)")
    expect(tree(lab).get_by_role("treeitem")).to_have_count(3)
    row(lab, "run").locator(".dlab-twisty").click()
    expect(row(lab, "run")).to_have_attribute("aria-expanded", "true")
    expect(tree(lab).get_by_role("treeitem")).to_have_count(7)
    expect(row(lab, "wave")).to_contain_text("float64")
    expect(row(lab, "wave")).to_contain_text("200,000")
    expect(row(lab, "wave")).to_contain_text("1.6 MB")
    row(lab, "wave").click()
    expect(preview(lab).get_by_role("img", name="Line plot of data")).to_be_visible()
    expect(preview(lab)).to_contain_text("<img src=x onerror=alert(1)>")
    assert preview(lab).locator("img[src]").count() == 0
    lab.shot("tree-line", lab.page.locator(".dlab-browser"))
    assert len(preview(lab).locator("svg path").get_attribute("d") or "") < 40_000


def test_previews_of_other_kinds(notebook: Callable[..., Lab]) -> None:
    lab = notebook(STORE + "browse(store)")
    row(lab, "run").locator(".dlab-twisty").click()
    row(lab, "picture").click()
    picture = preview(lab).locator("canvas")
    expect(picture).to_be_visible()
    corner = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data]"
    assert picture.evaluate(corner) == [255, 255, 255, 255]
    lab.shot("tree-image", lab.page.locator(".dlab-browser"))
    row(lab, "settings").click()
    expect(preview(lab).locator("pre")).to_contain_text("<b>Ada</b>")
    lab.shot("tree-mapping", lab.page.locator(".dlab-browser"))
    row(lab, "two").click()
    expect(preview(lab).locator("svg path")).to_have_count(2)
    row(lab, "people").click()
    expect(preview(lab).get_by_role("cell", name="<y>")).to_be_visible()
    lab.shot("tree-table", lab.page.locator(".dlab-browser"))


def test_keyboard(notebook: Callable[..., Lab]) -> None:
    lab = notebook(STORE + "browse(store)", "1 + 1")
    cells = lab.page.locator(".jp-Notebook .jp-Cell").count()
    tree(lab).focus()
    press(lab, "Home", "run")
    press(lab, "ArrowRight", "run")
    expect(row(lab, "run")).to_have_attribute("aria-expanded", "true")
    press(lab, "ArrowRight", "wave")
    press(lab, "ArrowDown", "picture")
    press(lab, "s", "settings")
    press(lab, "ArrowLeft", "run")
    press(lab, "End", "trials")
    press(lab, "PageUp", "run")
    press(lab, "ArrowDown Enter", "wave")
    expect(preview(lab).locator("svg path")).to_have_count(1)
    for key in "ddaax":
        lab.page.keyboard.press(key)
    assert tree(lab).evaluate("tree => tree === document.activeElement")
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_ten_thousand_rows_are_few_elements(notebook: Callable[..., Lab]) -> None:
    setup = "store = open_store('memory://')\nwith store.transaction():\n    "
    fill = "for index in range(10_000): store[f'item {index:05d}'] = index\n"
    lab = notebook("from datastore_lab import browse, open_store\n" + setup + fill + "browse(store)")
    expect(row(lab, "item 00000")).to_be_visible()
    tree(lab).focus()
    press(lab, "End", "item 09999")
    expect(row(lab, "item 09999")).to_be_in_viewport()
    press(lab, "PageUp Home", "item 00000")
    assert tree(lab).locator(".dlab-row").count() <= 60


def test_a_damaged_item_and_a_closed_store_are_told(notebook: Callable[..., Lab]) -> None:
    damaged = """
class Damaged:
    def __init__(self, engine): self.engine = engine
    def __getattr__(self, name): return getattr(self.engine, name)
    def stat(self, key):
        if key == ("run", "wave"): raise OSError("bad <sector>")
        return self.engine.stat(key)
store.engine = Damaged(store.engine)
browse(store)"""
    lab = notebook(STORE + damaged)
    row(lab, "run").locator(".dlab-twisty").click()
    expect(row(lab, "wave")).to_contain_text("bad <sector>")
    row(lab, "wave").click()
    expect(preview(lab).get_by_role("alert")).to_contain_text("bad <sector>")
    lab.shot("tree-error", lab.page.locator(".dlab-browser"))
    lab.python("store.close()")
    row(lab, "trials").locator(".dlab-twisty").click()
    expect(row(lab, "trials")).to_contain_text("closed")


def test_refresh_reads_the_tree_again(notebook: Callable[..., Lab]) -> None:
    lab = notebook(STORE + "browse(store)")
    row(lab, "trials").locator(".dlab-twisty").click()
    expect(row(lab, "004")).to_be_visible()
    row(lab, "004").click()
    expect(preview(lab)).to_contain_text("40 B")
    lab.python("store['trials/004'] = np.arange(500); store['trials/005'] = 1; store['zoo'] = 2")
    lab.page.get_by_role("button", name="Refresh", exact=True).click()
    expect(row(lab, "zoo")).to_be_visible()
    expect(row(lab, "005")).to_be_visible()
    expect(row(lab, "004")).to_contain_text("4 kB")
    expect(preview(lab)).to_contain_text("4 kB")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_themes_and_narrow_cells(notebook: Callable[..., Lab], dark: bool) -> None:
    lab = notebook(STORE + "browse(store)", "browse(open_store('memory://'))")
    lab.theme(dark)
    tree(lab).focus()
    press(lab, "Home ArrowRight", "run")
    expect(row(lab, "wave")).to_be_visible()
    press(lab, "ArrowDown Enter", "wave")
    expect(preview(lab).locator("svg path")).to_have_count(1)
    expect(tree(lab, 1)).to_contain_text("Nothing stored yet")
    background = lab.page.locator(".dlab-browser").first.evaluate(
        "el => getComputedStyle(el).backgroundColor"
    )
    level = [int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (sum(level) < 3 * 80) == dark
    lab.shot(f"tree-{'dark' if dark else 'light'}")
    lab.page.set_viewport_size({"width": 620, "height": 900})
    expect(preview(lab).first).to_be_visible()
    lab.shot(f"tree-{'dark' if dark else 'light'}-narrow")
