"""Interrupted computations: nothing of them is kept, the next one begins at once, and what they did ends."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import warnings

import pytest
from jupyter_client.manager import KernelManager

from datastore_lab.cache import CacheWarning, cached, interpolated

SETUP = """
import asyncio, pathlib, sys, time
from datastore_lab.notebook.caching import CacheMagics
get_ipython().register_magics(CacheMagics)
shown = lambda: print("running", flush=True)
"""

WAITS = {
    "a call": "time.sleep(60)",
    "python": "while time.time() < end: pass",
    "await": "await asyncio.sleep(60)",
    "a call in a cell that awaits": "await asyncio.sleep(0)\n    time.sleep(60)",
    "python in a cell that awaits": "await asyncio.sleep(0)\n    while time.time() < end: pass",
    "a command of the shell": "get_ipython().system('sleep 60')",
    "one that is caught": "try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        y = 'a part'",
}


class Kernel:
    """A kernel of its own, in a folder."""

    def __init__(self, folder):
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=str(folder))
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self.run(SETUP)

    def run(self, code, until=None):
        """Run a cell to its end, or until it shows a text; gives what it shows."""
        asked, shown = self._client.execute(code), ""
        return self.rest(asked, until, shown)

    def rest(self, asked=None, until=None, shown=""):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            shown += content.get("text", "") + content.get("ename", "")
            if content.get("execution_state") == "idle" or (until is not None and until in shown):
                return shown
        raise TimeoutError(shown)

    def interrupt(self):
        self._manager.interrupt_kernel()

    def close(self):
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupts")
    found = [Kernel(folder) for _ in range(2)]
    yield folder, *found
    for kernel in found:
        kernel.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", WAITS)
def test_a_cell_that_is_interrupted(kernels, what):
    folder, one, other = kernels
    done, name = folder / f"done {what}", f"end_{list(WAITS).index(what)}"
    cell = (
        f"%%cache -x {name},shown\n{name} = 'left'\nend = time.time() + 60\n"
        f"if not pathlib.Path({str(done)!r}).exists():\n    shown()\n    {WAITS[what]}\ny = 5"
    )
    one.run(cell, until="running")
    time.sleep(0.2)
    one.interrupt()
    began = time.monotonic()
    shown = one.rest()
    assert time.monotonic() - began < 5
    assert "KeyboardInterrupt" in shown or "not stored: interrupted" in shown
    assert "Traceback" not in shown.replace("KeyboardInterrupt", "")
    done.touch()
    assert "● ran" in other.run(cell)  # nothing was kept, and nobody is waited for
    assert "✓ cached" in one.run(cell)


def test_nothing_runs_on_after_an_interrupt(kernels):
    _, one, _ = kernels
    tick = "async def tick():\n    while True:\n        ticks.append(1)\n        time.sleep(0.01)\n"
    one.run(f"%%cache\nticks = []\n{tick}shown()\nawait tick()", until="running")
    time.sleep(0.2)
    one.interrupt()
    one.rest()
    assert one.run("before = len(ticks)\ntime.sleep(0.3)\nprint(before == len(ticks))") == "True\n"


def test_tasks_that_a_cell_does_not_await_are_told(kernels):
    _, one, _ = kernels
    shown = one.run(
        "%%cache\nasync def late():\n    await asyncio.sleep(60)\n"
        "asyncio.create_task(late())\nawait asyncio.sleep(0)\nk = 1"
    )
    assert "tasks that the cell began and did not await were cancelled" in shown
    assert one.run("await asyncio.sleep(0.01)\nprint('on')") == "on\n"


def _interrupted(x):
    """Give a part of the result where an interrupt comes."""
    try:
        if x > 0:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(10)
    except KeyboardInterrupt:
        return "a part"
    return "all"


@pytest.mark.parametrize("decorate", [cached, interpolated])
def test_a_function_that_catches_an_interrupt(decorate):
    function = decorate()(_interrupted)
    with pytest.warns(CacheWarning, match="_interrupted is returned, but not kept: it was interrupted"):
        assert function(1) == "a part"
    assert function.stats()["misses"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert function(0) == function(0) == "all"
    with pytest.warns(CacheWarning, match="interrupted"):
        assert function(1) == "a part"


def test_a_function_that_is_interrupted():
    def work(x):
        if x > 0:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(10)
        return x

    handler = signal.getsignal(signal.SIGINT)
    function = cached()(work)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            function(1)
    assert signal.getsignal(signal.SIGINT) is handler
    assert function.stats()["entries"] == 0
