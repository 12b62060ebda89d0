"""Cached cells as users see them: a miss, a hit, a figure, an error, a dry run, why, ls; light and dark."""

from __future__ import annotations

import re

import pytest
from harness import Lab, write_notebook
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SETUP = """%load_ext datastore_lab
import numpy as np, pandas as pd
from IPython.display import SVG, display
def smooth(trace, width):
    return np.convolve(trace, np.ones(width) / width, "same")
trace, width = np.sin(np.linspace(0, 9, 400)), 25"""

FIT = """%%cache results.h5
import time; time.sleep(1.2)
y = smooth(trace, width)
table = pd.DataFrame({"peak": [y.max(), y.min()], "at": [y.argmax(), y.argmin()]}, index=["high", "low"])
print("fitted", y.size, "points")
points = " ".join(f"{i},{60 - 50 * v:.1f}" for i, v in enumerate(y))
display(SVG(f'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="120">'
            f'<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="2"/></svg>'))
table"""

CELLS = [
    SETUP,
    FIT,
    FIT + "  # again",
    "width = 31",
    FIT.replace("results.h5", "results.h5 --dry-run"),
    "%cache why y",
    "%cache ls",
    "%cache show y",
    "%cache peak = float(y.max())",
]


def test_cached_cells(lab: Lab) -> None:
    write_notebook(lab.server.root / "cells.ipynb", *CELLS)
    lab.open("cells.ipynb").run_all()
    texts = [lab.cell(number).locator(".jp-OutputArea") for number in range(len(CELLS))]
    expect(texts[1]).to_contain_text(re.compile(r"● ran \d"))
    expect(texts[2]).to_contain_text("✓ cached")
    expect(texts[2]).to_contain_text(re.compile(r"saved \d"))
    expect(texts[2].locator(".jp-RenderedSVG img")).to_have_count(1)
    expect(texts[2].locator("table")).to_have_count(1)
    assert texts[2].inner_text().index("fitted 400 points") < texts[2].inner_text().index("high")
    expect(texts[4]).to_contain_text("width: 25 → 31")
    expect(texts[5]).to_contain_text("width: 25 → 31")
    expect(texts[6]).to_contain_text("1 result")
    for dark in (False, True):
        lab.theme(dark)
        for number in (1, 4, 7):
            lab.cell(number).scroll_into_view_if_needed()
            lab.shot(f"cache-{'dark' if dark else 'light'}-{number}")


def test_an_error_in_a_cached_cell(lab: Lab) -> None:
    write_notebook(lab.server.root / "error.ipynb", SETUP, "%%cache results.h5\nprint('before')\ny = 1 / 0")
    lab.open("error.ipynb").start_all()
    output = lab.cell(1).locator(".jp-OutputArea")
    expect(output).to_contain_text("ZeroDivisionError: division by zero", timeout=60_000)
    assert output.inner_text().count("ZeroDivisionError: division by zero") == 1
    assert "caching" not in output.inner_text()
    lab.shot("cache-error", lab.cell(1))
