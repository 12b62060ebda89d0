"""Calling methods of ophyd and ophyd-async alike: statuses and coroutines are waited for."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from datastore_lab.errors import DeviceFailed

_LOOK = 0.05
"""Seconds between two looks whether the device was stopped while a call goes on."""

_own: list[asyncio.AbstractEventLoop] = []
_guard = threading.Lock()


class Caller:
    """Calls methods of one object, in the event loop where it is asynchronous.

    Parameters
    ----------
    obj : object
        Asynchronous if one of its methods is.
    timeout : float
        Seconds that a call may take.
    loop : event loop, optional
        That in which the object was connected; by default bluesky's if there is one, else one that all
        devices of this process share, in a thread of its own.
    """

    def __init__(self, obj: Any, timeout: float, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._name = getattr(obj, "name", type(obj).__name__)
        self._timeout, self._loop = timeout, loop
        self.asynchronous = any(
            inspect.iscoroutinefunction(getattr(obj, method, None))
            for method in ("read", "describe", "connect", "describe_collect")
        )
        self.stopped = threading.Event()

    def call(self, method: Callable[..., Any], *args: Any, timeout: float | None = None) -> Any:
        """Call a method, wait for what it started, and return what it gives.

        Raises
        ------
        DeviceFailed
            If it takes longer than the timeout, or the device is stopped meanwhile.
        """
        if self.asynchronous:
            running = asyncio.run_coroutine_threadsafe(_finished(method, args), self._loop or _shared_loop())
            try:
                self._wait(running, method, timeout)
            finally:
                running.cancel()
            return running.result()
        result = method(*args)
        if not (hasattr(result, "add_callback") and hasattr(result, "done")):
            return result
        over: Future[None] = Future()
        result.add_callback(lambda *_status: over.set_result(None))
        self._wait(over, method, timeout)
        if not result.success:
            error = result.exception() if callable(getattr(result, "exception", None)) else None
            raise error or DeviceFailed(f"{self._name}.{_name(method)}() did not succeed", key=self._name)
        return result

    def _wait(self, running: Future[Any], method: Callable[..., Any], timeout: float | None) -> None:
        limit = self._timeout if timeout is None else timeout
        ends = time.monotonic() + limit
        over = threading.Event()
        running.add_done_callback(lambda _: over.set())
        while not over.wait(_LOOK):
            if self.stopped.is_set():
                raise DeviceFailed(f"{self._name} was stopped during {_name(method)}()", key=self._name)
            if time.monotonic() > ends:
                raise DeviceFailed(
                    f"{self._name}.{_name(method)}() took more than {limit:g} s; check the instrument, or "
                    "give a longer timeout",
                    key=self._name,
                )


async def _finished(method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    result = method(*args)
    return await result if inspect.isawaitable(result) else result


def _name(method: Callable[..., Any]) -> str:
    return getattr(method, "__name__", repr(method))


def _shared_loop() -> asyncio.AbstractEventLoop:
    """Give the loop that all asynchronous devices of this process live in: they may belong together."""
    engine = sys.modules.get("bluesky.run_engine")
    theirs = engine.get_bluesky_event_loop() if engine is not None else None
    if theirs is not None and theirs.is_running():
        loop: asyncio.AbstractEventLoop = theirs
        return loop
    with _guard:
        if not _own:
            _own.append(asyncio.new_event_loop())
            threading.Thread(target=_own[0].run_forever, name="loop of the devices", daemon=True).start()
        return _own[0]
