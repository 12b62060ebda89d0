"""The live panel in JupyterLab: it moves, obeys also while a cell runs, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from harness import Lab, write_notebook
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

RUN = """
from datastore_lab import HostMonitor, SimulatedCamera, SimulatedDAQ, acquire
from datastore_lab.notebook import panel
run = acquire(SimulatedDAQ(rate=2000), SimulatedCamera(), HostMonitor(), metadata={"name": "<b>bench</b>"})
live = panel(run)
"""
BUSY = """
import time
end = time.monotonic() + 20
while time.monotonic() < end: sum(range(1000))
ended = time.monotonic()
"""
THREADS = (
    "import threading; print([t.name for t in threading.enumerate() if t.name.startswith('datastore-lab')])"
)

GONE = """
import time
while any(thread.name == "datastore-lab-display" for thread in __import__("threading").enumerate()):
    time.sleep(0.02)
"""


def live(lab: Lab) -> Locator:
    return lab.page.get_by_role("region", name=re.compile("Live panel"))


def button(lab: Lab, name: str) -> Locator:
    return live(lab).get_by_role("button", name=name, exact=True)


def frames(lab: Lab) -> int:
    return int(live(lab).get_attribute("data-frames") or 0)


def wait_for_frames(lab: Lab, more: int) -> None:
    script = "([el, count]) => Number(el.dataset.frames ?? 0) >= count"
    lab.page.wait_for_function(script, arg=[live(lab).element_handle(), frames(lab) + more], timeout=30_000)


def state(lab: Lab, expected: str, seconds: float = 10) -> None:
    expect(live(lab).locator(".dlab-state")).to_have_text(expected, timeout=1000 * seconds)


def still_running(lab: Lab) -> bool:
    script = """async () => {
        const later = new Promise(done => setTimeout(() => done(true), 100));
        return await Promise.race([window.allCells.then(() => false), later]); }"""
    return bool(lab.js(script))


def pixels(lab: Lab) -> str:
    return str(live(lab).locator("canvas").first.evaluate("canvas => canvas.toDataURL()"))


def test_moves_pauses_marks_and_stops(notebook: Callable[..., Lab]) -> None:
    lab = notebook(RUN + "live")
    wait_for_frames(lab, 5)
    state(lab, "running")
    expect(live(lab)).to_contain_text("<b>bench</b>")
    before = pixels(lab)
    wait_for_frames(lab, 10)
    assert pixels(lab) != before
    lab.shot("panel-light", live(lab))
    button(lab, "Pause").click()
    state(lab, "paused")
    assert lab.python("print(run.state)") == "paused"
    button(lab, "Resume").click()
    state(lab, "running")
    live(lab).get_by_role("textbox", name="Text of the mark").fill("d d <i>here</i>")
    button(lab, "Mark").click()
    wait_for_frames(lab, 5)
    button(lab, "Stop").click()
    state(lab, "stopped")
    assert lab.python("print(run.state, [mark.text for mark in run._marks][-1])") == "stopped d d <i>here</i>"
    for name in ("Start", "Pause", "Stop", "Mark"):
        expect(button(lab, name)).to_be_disabled()
    assert lab.python(THREADS) == "[]"


def test_moves_and_obeys_while_a_cell_runs(lab: Lab) -> None:
    write_notebook(lab.server.root / "busy.ipynb", RUN + "live", BUSY)
    lab.open("busy.ipynb").start_all()
    live(lab).wait_for(timeout=60_000)
    wait_for_frames(lab, 10)
    for name, becomes in (("Pause", "paused"), ("Resume", "running"), ("Stop", "stopped")):
        button(lab, name).click()
        state(lab, becomes)
    assert still_running(lab)
    lab.finish_all()
    assert lab.python("print(run.state, ended < time.monotonic())") == "stopped True"


def test_a_failed_run_says_why(notebook: Callable[..., Lab]) -> None:
    failing = """
class Broken(SimulatedDAQ):
    def read(self, timeout):
        raise OSError("no <device> answers")
panel(acquire(Broken()))"""
    lab = notebook(RUN + "run.stop()" + failing)
    state(lab, "failed")
    expect(live(lab).get_by_role("alert")).to_contain_text("no <device> answers")
    lab.shot("panel-failed", live(lab))


def test_a_run_that_waits_is_started_here(notebook: Callable[..., Lab]) -> None:
    lab = notebook(RUN + "run.stop()\nwaiting = acquire(SimulatedDAQ(), start=False)\npanel(waiting)")
    state(lab, "ready")
    expect(button(lab, "Stop")).to_be_disabled()
    button(lab, "Start").click()
    state(lab, "running")
    wait_for_frames(lab, 5)
    button(lab, "Stop").click()
    state(lab, "stopped")


def test_closing_it_leaves_no_thread_and_no_comm(notebook: Callable[..., Lab]) -> None:
    lab = notebook(RUN + "live")
    wait_for_frames(lab, 5)
    assert "display" in lab.python(THREADS)
    lab.command("notebook:clear-all-cell-outputs")
    expect(live(lab)).to_have_count(0)
    assert lab.python(GONE + THREADS) == "[]"
    left = "number = live.comm.comm_id; live.close(); run.stop()\nimport comm\n"
    left += "print(number in comm.get_comm_manager().comms)"
    assert lab.python(left) == "False"


def test_a_panel_without_its_kernel_does_not_look_alive(notebook: Callable[..., Lab]) -> None:
    lab = notebook(RUN + "live")
    wait_for_frames(lab, 5)
    restart = "await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart();"
    lab.js(f"async () => {{ {restart} }}")
    state(lab, "no answer", seconds=25)
    expect(live(lab).get_by_role("alert")).to_contain_text("No answer from the kernel")
    expect(button(lab, "Stop")).to_be_disabled()
    lab.shot("panel-silent", live(lab))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_themes_and_narrow_cells(notebook: Callable[..., Lab], dark: bool) -> None:
    lab = notebook(RUN + "live")
    lab.theme(dark)
    wait_for_frames(lab, 40)
    lab.shot(f"panel-{'dark' if dark else 'light'}-page")
    lab.page.set_viewport_size({"width": 620, "height": 1000})
    wait_for_frames(lab, 10)
    lab.shot(f"panel-{'dark' if dark else 'light'}-narrow")
    expect(live(lab)).not_to_contain_text("can't be drawn")
    button(lab, "Stop").click()
    state(lab, "stopped")
