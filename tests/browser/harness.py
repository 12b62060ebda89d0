"""A real JupyterLab in a real Chromium: no mocks, no browser download, no network but 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page, sync_playwright

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--force-color-profile=srgb",
]
_ERRORS = (
    ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error'], "
    ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"
)
# The toolbar says "idle" before the kernel is connected, and running then opens a dialogue: ask the session.
_READY = """async (path) => {
    const pause = ms => new Promise(done => setTimeout(done, ms));
    const app = window.jupyterapp; await app.restored;
    const find = () => [...app.shell.widgets('main')].find(widget => widget.context?.path === path);
    while (!find()) await pause(50);
    const panel = find(); await panel.context.ready; await panel.sessionContext.ready;
    app.shell.activateById(panel.id);
    const kernel = () => panel.sessionContext.session?.kernel;
    while (!(kernel()?.connectionStatus === 'connected' && kernel().status === 'idle')) await pause(25);
    await panel.revealed;
}"""


def chromium() -> str:
    """Give the path of Chromium, or fail: a browser test that doesn't run proves nothing."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    for name in filter(None, names):
        if found := shutil.which(name):
            return found
    message = (
        "the browser tests need Chromium: install it (apt-get install chromium) or set CHROMIUM to its path"
    )
    raise AssertionError(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


class Server:
    """JupyterLab on a free port, with folders and a kernel of its own."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root, scratch
        self.token, self.port = "bench", free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self._write_settings()
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"),
            *(f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}"),
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
        ]
        self._log = (self.scratch / "server.log").open("w")
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            start_new_session=True,
        )
        try:
            self._wait(90)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for ask in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(ask)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(20)
        self._log.close()

    def log(self) -> str:
        return (self.scratch / "server.log").read_text()[-3000:]

    def _environment(self) -> dict[str, str]:
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        own = {name: str(self.scratch / folder) for name, folder in folders.items()}
        return {**os.environ, **own, "JUPYTER_PREFER_ENV_PATH": "0", "NO_PROXY": "*"}

    def _write_settings(self) -> None:
        kernel = self.scratch / "data/kernels/python3/kernel.json"
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {
            "argv": argv,
            "display_name": "Python 3",
            "language": "python",
            "metadata": {"debugger": False},
        }
        _write_json(kernel, spec)
        for name, values in SETTINGS.items():
            scope, plugin = name.split(":")
            _write_json(self.scratch / "settings" / scope / f"{plugin}.jupyterlab-settings", values)

    def _wait(self, seconds: float) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(
            f"{self.url}/api/status", headers={"Authorization": f"token {self.token}"}
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process.poll() is None, f"JupyterLab ended: {self.log()}"
            with contextlib.suppress(OSError), opener.open(request, timeout=5) as answer:
                assert answer.status == 200
                return
            time.sleep(0.1)
        raise AssertionError(f"JupyterLab did not answer within {seconds} s: {self.log()}")


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


class Lab:
    """One page with JupyterLab in it."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.console: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda line: self.console.append(f"{line.type}: {line.text}"))
        page.on("pageerror", lambda error: self.console.append(f"pageerror: {error}"))
        page.on("request", self._note_request)

    def open(self, notebook: str) -> Lab:
        """Open a notebook and wait until its kernel can run cells."""
        self.visit(notebook)
        self.js(_READY, notebook, 90)
        return self

    def visit(self, notebook: str) -> None:
        """Open a notebook without waiting for a kernel."""
        self.page.goto(f"{self.server.url}/lab/tree/{notebook}?token={self.server.token}&reset")
        self.page.locator(".jp-NotebookPanel .jp-Notebook").wait_for(timeout=60_000)

    def js(self, function: str, argument: Any = None, seconds: float = 30) -> Any:
        """Run an async function in the page, within a time limit (evaluate has none of its own)."""
        limited = """([source, argument, ms]) => Promise.race([
            (0, eval)(`(${source})`)(argument),
            new Promise((_, fail) => setTimeout(() => fail(new Error(`no answer within ${ms} ms`)), ms))])"""
        return self.page.evaluate(limited, [function, argument, 1000 * seconds])

    def command(self, name: str, arguments: dict[str, Any] | None = None, seconds: float = 60) -> None:
        """Run one of JupyterLab's commands."""
        run = "async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }"
        self.js(run, [name, arguments or {}], seconds)

    def run_all(self, seconds: float = 120) -> None:
        """Run all cells and assert that none of them shows an error."""
        self.start_all()
        self.finish_all(seconds)

    def start_all(self) -> None:
        """Begin to run all cells."""
        self.js(
            "async () => { window.allCells = window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
        )

    def finish_all(self, seconds: float = 120) -> None:
        """Wait until all cells have run and assert that none of them shows an error."""
        self.js("async () => { await window.allCells; }", seconds=seconds)
        errors = self.errors()
        assert not errors, "\n".join(errors)

    def python(self, code: str, seconds: float = 30) -> str:
        """Run code in the notebook's kernel without a cell; gives what it printed."""
        run = """async (code) => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            let text = '';
            const future = kernel.requestExecute({code, store_history: false});
            future.onIOPub = message => {
                if (message.header.msg_type === 'stream') text += message.content.text;
                if (message.header.msg_type === 'error') text += message.content.traceback.join('\\n');
            };
            await future.done; return text; }"""
        return str(self.js(run, code, seconds)).strip()

    def errors(self) -> list[str]:
        return self.page.locator(_ERRORS).all_inner_texts()

    def theme(self, dark: bool) -> None:
        self.command("apputils:change-theme", {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"})
        self.page.locator(f"body[data-jp-theme-light='{str(not dark).lower()}']").wait_for(state="attached")

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def shot(self, name: str, locator: Locator | None = None, clip: Any = None) -> Path:
        """Keep a screenshot beside the repository's other artefacts."""
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        if locator is None:
            self.page.screenshot(path=path, clip=clip)
        else:
            locator.screenshot(path=path)
        return path

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(
            (self.server.url, "data:", "blob:", self.server.url.replace("http", "ws"))
        ):
            self.foreign.append(request.url)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start a headless Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, headless=True)
        try:
            yield started
        finally:
            started.close()
