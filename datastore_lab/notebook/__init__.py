"""The notebook face: a browser for stores, a live panel for runs, and the registration of both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeAlias

from datastore_lab.errors import MissingExtra

if TYPE_CHECKING:
    from datastore_lab.notebook.browser import Browser
    from datastore_lab.notebook.live import Panel

_Homes: TypeAlias = dict[str, tuple[str, ...]]

__all__ = ["browse", "load_ipython_extension", "panel", "unload_ipython_extension"]

_BROWSED: _Homes = {
    "datastore_lab.store": ("Store",),
    "datastore_lab.workspace": ("AnalysisWorkspace", "LazyAnalysisWorkspace"),
}
_RUNS: _Homes = {"datastore_lab.acquire": ("Run",)}


def browse(target: Any) -> Browser:
    """Show a store as a tree in the notebook.

    Parameters
    ----------
    target : Store, workspace, run, str or path-like
        A path or URL is opened for reading, and closed with the browser.

    Returns
    -------
    Browser
        Shows itself as the last line of a cell.

    Raises
    ------
    TypeError
        If there is no store behind `target`.
    NotFound, EngineError, Foreign, Corrupt
        If a path can't be opened.

    Examples
    --------
    >>> from datastore_lab import open_store
    >>> browse(open_store("memory://"))
    <Browser of memory://, 0 items>
    """
    shown: Browser = _part("browser").browse(target)
    return shown


def panel(run: Any, *, fps: float = 30.0, window: float | None = None) -> Panel:
    """Show a run live in the notebook, with buttons to start, pause, mark and stop it.

    Parameters
    ----------
    run : Run
        As `datastore_lab.acquire` gives it; running or not yet.
    fps : float, default 30
        Frames per second at most.
    window : float, optional
        Seconds that line plots show; by default about 4,000 samples, between 0.5 and 30 s.

    Returns
    -------
    Panel
        Shows itself as the last line of a cell.
    """
    shown: Panel = _part("live").Panel(run, fps=fps, window=window)
    return shown


def _part(name: str) -> Any:
    """Import a module of this room; say how to install what it needs if that is missing."""
    try:
        return importlib.import_module(f"datastore_lab.notebook.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("datastore_lab"):
            raise
        raise MissingExtra(
            f"this needs the package {error.name!r}: pip install 'datastore-lab[lab]'", key=error.name
        ) from error


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics, and let stores, workspaces and runs show themselves as the last line of a cell.

    Parameters
    ----------
    ipython : IPython.core.interactiveshell.InteractiveShell
    """
    from datastore_lab.notebook.caching import CacheMagics

    ipython.register_magics(CacheMagics)
    formatter = ipython.display_formatter.mimebundle_formatter
    for show, homes in ((browse, _BROWSED), (panel, _RUNS)):
        for cls in _classes(homes):
            formatter.for_type(cls, _shown_by(show))


def unload_ipython_extension(ipython: Any) -> None:
    """Let stores, workspaces and runs show as plain text again."""
    formatter = ipython.display_formatter.mimebundle_formatter
    for homes in (_BROWSED, _RUNS):
        for cls in _classes(homes):
            formatter.pop(cls, None)


def _classes(homes: _Homes) -> list[type]:
    return [
        getattr(importlib.import_module(module), name) for module, names in homes.items() for name in names
    ]


def _shown_by(show: Any) -> Any:
    return lambda target: show(target)._repr_mimebundle_()
