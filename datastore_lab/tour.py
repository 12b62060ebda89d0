"""The tour: find the notebook, open it in JupyterLab, or execute it here."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datastore_lab.errors import EngineError, LabError, MissingExtra, NotFound, ReadOnly

NOTEBOOK = "tour.ipynb"
EXECUTED = "tour-executed.ipynb"
_NEEDED = ("anywidget", "bokeh", "ipykernel", "ipywidgets", "jupyterlab", "nbclient", "nbformat")
_CELL_SECONDS = 180
_START_SECONDS = 90
_OPENS = {
    ".h5": 'h5py.File("{name}")',
    ".zarr": 'zarr.open_group("{name}", mode="r")',
    ".arrow": 'pyarrow.ipc.open_file("{name}")',
}


def execute(folder: Path) -> int:
    """Execute the notebook without a browser, and print what it made.

    Returns
    -------
    int
        0, or 1 if a cell failed.

    Raises
    ------
    MissingExtra, NotFound, ReadOnly
        If a library, the notebook or a writable folder is missing.
    """
    _check_installed()
    source = find_notebook()
    work = _made(folder)
    began = time.time()
    failure = _run_cells(source, work)
    if failure is not None:
        print(f"datastore-lab: the tour failed: {failure}", file=sys.stderr)
        print(f"See {work / EXECUTED}", file=sys.stderr)
        return 1
    print(f"Executed {work / EXECUTED} in {time.time() - began:.0f} s. It made:")
    print(_inventory(work, began - 1))
    return 0


def open_in_lab(folder: Path, *, browser: bool = True) -> int:
    """Copy the notebook into a folder and open it in JupyterLab; ends with it.

    Raises
    ------
    MissingExtra, NotFound, ReadOnly
        If a library, the notebook or a writable folder is missing.
    EngineError
        If JupyterLab does not start.
    """
    _check_installed()
    source = find_notebook()
    work = _made(folder)
    if (work / NOTEBOOK).exists():
        print(f"{work / NOTEBOOK} is there already and is opened as it is.")
    else:
        _copy(source, work / NOTEBOOK)
    return _serve(work, browser=browser)


def find_notebook() -> Path:
    """Find the notebook: in a clone of the repository, or inside the installed package."""
    package = Path(__file__).resolve().parent
    places = [package.parent / "notebooks" / NOTEBOOK, package / "notebook" / NOTEBOOK]
    for place in places:
        if place.is_file():
            return place
    raise NotFound(
        f"the notebook of the tour is missing: it is neither {places[0]} nor {places[1]}; install again"
    )


def _check_installed() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"the tour needs {', '.join(missing)}: pip install 'datastore-lab[lab]'", key=missing[0]
        )


def _made(folder: Path) -> Path:
    """Make the working folder, and prove that it can be written."""
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ReadOnly(
            f"can't work in the folder {str(folder)!r} ({error.strerror}); give another one with --folder",
            key=str(folder),
        ) from error
    return folder.resolve()


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)  # not its mode: an installed package may be read only


# -- headless ------------------------------------------------------------------------------------------


def _run_cells(source: Path, work: Path) -> str | None:
    """Execute every cell; gives what went wrong, in a sentence."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    nbformat: Any = importlib.import_module("nbformat")  # its functions have no types
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return f"{error.ename}: {error.evalue} in the cell {_failed_cell(notebook)!r}"
    except CellTimeoutError:
        return f"a cell took longer than {_CELL_SECONDS} s"
    except RuntimeError as error:  # what nbclient raises for a kernel that does not start, or dies
        return f"the kernel failed ({error})"
    except AssertionError:  # how nbclient ends after Ctrl-C or SIGTERM, when it has shut down its kernel
        if client.km is not None:
            raise
        return "it was interrupted"
    finally:
        nbformat.write(notebook, work / EXECUTED)
    return None


def _failed_cell(notebook: Any) -> str:
    outputs = ((cell.id, output) for cell in notebook.cells for output in cell.get("outputs", ()))
    return next((str(name) for name, output in outputs if output.output_type == "error"), "?")


def _inventory(work: Path, since: float) -> str:
    """List the stores that were written, with how to open each by other programs."""
    from datastore_lab.formats.grid import Grid

    made = [
        path for path in sorted(work.rglob("*")) if path.suffix in _OPENS and path.stat().st_mtime >= since
    ]
    rows = [_described(path, path.relative_to(work)) for path in made]
    return repr(Grid(("file", "size", "items", "opens with"), rows))


def _described(path: Path, name: Path) -> tuple[str, ...]:
    from datastore_lab.store import open_store
    from datastore_lab.units import format_size

    try:
        with open_store(path, "r") as store:
            items = str(len(store))
    except LabError as error:
        items = f"unreadable: {error}"
    opens = _OPENS[path.suffix].format(name=name.as_posix())
    return (name.as_posix(), format_size(_size(path)), items, opens)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


# -- in JupyterLab -------------------------------------------------------------------------------------


def _serve(work: Path, *, browser: bool) -> int:
    port, token = _free_port(), secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={work}", f"--ServerApp.port={port}"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        f"--LabApp.default_url=/lab/tree/{NOTEBOOK}",
        "--LabApp.news_url=None",  # no question about news in front of the first look
    ]
    command += [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command += ["--allow-root"]  # (in a container there is nobody else)
    server = subprocess.Popen(command, env={**os.environ, "JUPYTER_TOKEN": token})  # noqa: S603 (our own words)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _await_port(server, port)
        print(f"The tour: http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}", flush=True)
        return _ended(server)
    finally:
        signal.signal(signal.SIGTERM, before)
        if server.poll() is None:
            server.terminate()
            server.wait()


def _await_port(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    cause = "no answer" if server.poll() is None else f"exit code {server.returncode}"
    raise EngineError(
        f"JupyterLab did not start ({cause}); "
        f"its own message is above. Try: {Path(sys.executable).name} -m jupyterlab"
    )


def _ended(server: subprocess.Popen[bytes]) -> int:
    """Wait for the server. It gets Ctrl-C as well, and asks; the answer is its business."""
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
