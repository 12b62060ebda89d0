"""A cell run as the shell runs any other, its error raised once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any

from datastore_lab.notebook.caching.capture import patched

if TYPE_CHECKING:
    from collections.abc import Iterator


def run(shell: Any, body: str, text: str) -> Any:
    """Run a cell; its error is raised once, as that of the whole cell.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
    body : str
        The cell.
    text : str
        The cell as Python.

    Returns
    -------
    object
        The value of the cell.
    """
    __tracebackhide__ = True
    quiet = shell.displayhook.semicolon_at_end_of_expression
    with _errors_unshown(shell), patched(shell.displayhook, quiet=lambda: quiet(text)):
        result = _run_beside(shell, body) if _needs_loop(shell, body) else shell.run_cell(body)
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        raise error
    return result.result


def _needs_loop(shell: Any, body: str) -> bool:
    """Tell whether the cell awaits something while a loop, the kernel's, runs already in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return bool(shell.should_run_async(body, transformed_cell=shell.transform_cell(body)))


@contextlib.contextmanager
def _errors_unshown(shell: Any) -> Iterator[None]:
    names = ("showtraceback", "showsyntaxerror", "showindentationerror")
    with patched(shell, **dict.fromkeys(names, _show_nothing)):
        yield


def _show_nothing(*_args: object, **_kwargs: object) -> None:
    """Stand in for the shell's display of an error that is about to be raised again."""


def _run_beside(shell: Any, body: str) -> Any:
    """Run a cell that awaits in a thread with a loop of its own, and wait for it.

    The loop of this thread is the kernel's: it is busy with this very cell and can't run another task to its
    end. The thread has a copy of the context, so that output finds its cell.
    """
    loop = asyncio.new_event_loop()
    outcome: list[Any] = []
    text = shell.transform_cell(body)
    task = loop.create_task(shell.run_cell_async(body, transformed_cell=text))

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            outcome.append(loop.run_until_complete(task))
        finally:
            loop.close()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="cell that awaits")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    finally:
        shell.events.trigger("post_execute")
    shell.events.trigger("post_run_cell", outcome[0])
    return outcome[0]
