"""The workspace that keeps its items in a temporary file instead of memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from datastore_lab.store import open_store
from datastore_lab.workspace.analysis import AnalysisWorkspace
from datastore_lab.workspace.scratch import scratch_folder


class LazyAnalysisWorkspace(AnalysisWorkspace):
    """The same workspace for results that do not fit into memory.

    Every `store` goes to a temporary HDF5 file at once, every `get` reads from it. The file is gone after
    `close`, after garbage collection, and when the process ends; that of a process that was killed is
    removed by the next one that opens a lazy workspace.

    Parameters
    ----------
    name : str, optional
        A name for people.

    Examples
    --------
    >>> with LazyAnalysisWorkspace(name="compute_session") as ws:
    ...     ws.store("D0", "rates", [1.0, 2.0])
    ...     ws.get("D0", "rates")
    [1.0, 2.0]
    """

    def __init__(self, name: str | None = None) -> None:
        folder, release = scratch_folder()
        super().__init__(name=name, store=open_store(folder / "workspace.h5", "x"))
        self._clean_up = weakref.finalize(self, _remove, self.backing.close, release)

    def close(self) -> None:
        """Close and remove the temporary file; may be called twice."""
        self._clean_up()


def _remove(close: Callable[[], None], release: Callable[[], None]) -> None:
    close()
    release()
