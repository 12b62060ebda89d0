"""A cell run as the shell runs any other, its error raised once."""

from __future__ import annotations

import asyncio
import contextlib
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
    """Run a cell that awaits in a loop of its own.

    The loop that runs already is busy with this very cell and can't run another task to its end, so it steps
    aside. The cell stays in its thread: an interrupt meets the cell itself, as without the magic.
    """
    text = shell.transform_cell(body)
    with _stepped_aside(), _loop() as loop:
        task = loop.create_task(shell.run_cell_async(body, transformed_cell=text))
        try:
            result = loop.run_until_complete(task)
        except KeyboardInterrupt:  # (between two steps of the cell: it waits for something)
            task.cancel()
            loop.run_until_complete(task)
            raise
        finally:
            shell.events.trigger("post_execute")
    shell.events.trigger("post_run_cell", result)
    return result


@contextlib.contextmanager
def _stepped_aside() -> Iterator[None]:
    """Let another loop run in this thread while the one that runs waits for what is inside."""
    outer = asyncio.get_running_loop()
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio.tasks._enter_task(outer, task)


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop, and end what was begun in it and not awaited."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            print("✗ tasks that the cell began and did not await were cancelled at its end")
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
