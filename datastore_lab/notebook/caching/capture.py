"""The output of a cell, taken down while it is shown, and shown again later in the same order.

Everything goes through the objects that the shell itself uses: the ``write`` of the two streams, the display
publisher, the display hook. So text that a logging handler or a thread writes is there as well, and what is
printed before a figure comes back before it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Item: TypeAlias = dict[str, Any]

_LIVE = ("application/vnd.jupyter.widget-view+json",)
"""Kinds that only mean something while the object behind them lives."""


class _Tee:
    """A stream that can't be given another ``write``, and a recorder in front of it."""

    def __init__(self, stream: Any, write: Any) -> None:
        self._stream = stream
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Recorder:
    """Takes down output while it is shown.

    Attributes
    ----------
    items : list of dict
        ``{"stream": "stdout", "text": ...}``, ``{"display": bundle, "metadata": ..., "transient": ...,
        "update": bool}`` or ``{"result": bundle, "metadata": ...}``, JSON throughout.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.items: list[Item] = []
        self._quiet = 0
        self._clear_next = False

    @property
    def has_result(self) -> bool:
        """Whether the value of the cell was shown, and has not been cleared since."""
        return any("result" in item for item in self.items)

    @contextlib.contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record what is shown inside."""
        with contextlib.ExitStack() as stack:
            for name in ("stdout", "stderr"):
                stack.enter_context(self._stream(name))
            stack.enter_context(self._publisher())
            stack.enter_context(self._hook())
            yield self

    @contextlib.contextmanager
    def _stream(self, name: str) -> Iterator[None]:
        stream = getattr(sys, name)
        original, is_tee = stream.write, "write" in getattr(stream, "__dict__", ())

        def write(text: str) -> Any:
            self._text(name, text)
            return original(text)

        try:
            stream.write = write
        except AttributeError:
            setattr(sys, name, _Tee(stream, write))
        try:
            yield
        finally:
            if getattr(sys, name) is stream and is_tee:
                stream.write = original
            elif getattr(sys, name) is stream:
                del stream.write
            else:
                setattr(sys, name, stream)

    @contextlib.contextmanager
    def _publisher(self) -> Iterator[None]:
        publisher = self.shell.display_pub
        publish, clear = publisher.publish, publisher.clear_output

        def tee(
            data: Any,
            metadata: Any = None,
            source: Any = None,
            *,
            transient: Any = None,
            update: bool = False,
        ) -> None:
            del source  # (obsolete; the publishers take no notice of it)
            self._display(data, metadata, transient, update)
            with self._unrecorded():
                publish(data, metadata, transient=transient, update=update)

        def tee_clear(wait: bool = False) -> None:
            self._clear(wait)
            with self._unrecorded():
                clear(wait)

        with patched(publisher, publish=tee, clear_output=tee_clear):
            yield

    @contextlib.contextmanager
    def _hook(self) -> Iterator[None]:
        hook = self.shell.displayhook
        start, write, finish = hook.start_displayhook, hook.write_format_data, hook.finish_displayhook

        def tee_start() -> None:
            self._quiet += 1  # a terminal's hook prints the value: that is the value, not text beside it
            start()

        def tee_write(format_dict: Any, md_dict: Any = None) -> None:
            self._add({"result": _bundle(format_dict), "metadata": _plain(md_dict or {})})
            write(format_dict, md_dict)

        def tee_finish() -> None:
            finish()
            self._quiet -= 1

        with patched(
            hook, start_displayhook=tee_start, write_format_data=tee_write, finish_displayhook=tee_finish
        ):
            yield

    @contextlib.contextmanager
    def _unrecorded(self) -> Iterator[None]:
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def _text(self, name: str, text: Any) -> None:
        if self._quiet or not isinstance(text, str) or not text:
            return
        last = self.items[-1] if self.items and not self._clear_next else {}
        if last.get("stream") == name:
            last["text"] += text
        else:
            self._add({"stream": name, "text": text})

    def _display(self, data: Any, metadata: Any, transient: Any, update: bool) -> None:
        item = {
            "display": _bundle(data),
            "metadata": _plain(metadata or {}),
            "transient": _plain(transient or {}),
        }
        if update and (shown := self._shown(item["transient"].get("display_id"))):
            shown.update(item)
        else:
            self._add({**item, "update": update})

    def _shown(self, name: Any) -> Item | None:
        return next(
            (item for item in self.items if name and item.get("transient", {}).get("display_id") == name),
            None,
        )

    def _clear(self, wait: bool) -> None:
        if wait:
            self._clear_next = True
        else:
            self.items.clear()

    def _add(self, item: Item) -> None:
        if self._clear_next:
            self.items.clear()
            self._clear_next = False
        self.items.append(item)


def replay(shell: Any, items: list[Item]) -> None:
    """Show recorded output again, in its order."""
    for item in items:
        if "stream" in item:
            stream = getattr(sys, item["stream"])
            stream.write(item["text"])
            stream.flush()
        elif "display" in item:
            shell.display_pub.publish(
                item["display"], item["metadata"], transient=item["transient"], update=item["update"]
            )
        else:
            _show_result(shell.displayhook, item)


def _show_result(hook: Any, item: Item) -> None:
    hook.start_displayhook()
    hook.write_output_prompt()
    hook.write_format_data(item["result"], item["metadata"])
    hook.finish_displayhook()


@contextlib.contextmanager
def patched(target: Any, **functions: Any) -> Iterator[None]:
    """Put functions in front of the methods of one object, for a while."""
    before = {name: vars(target)[name] for name in functions if name in vars(target)}
    for name, function in functions.items():
        setattr(target, name, function)
    try:
        yield
    finally:
        for name in functions:
            if name in before:
                setattr(target, name, before[name])
            else:
                delattr(target, name)


def _bundle(data: Mapping[str, Any]) -> dict[str, Any]:
    """Give a mime bundle as JSON: bytes as base64, as notebooks keep them."""
    kept = {kind: value for kind, value in data.items() if kind not in _LIVE} or dict(data)
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else _plain(value)
        for kind, value in kept.items()
    }


def _plain(value: Any) -> Any:
    """Give a copy of a JSON value that no one else can change; what is not JSON becomes text."""
    return json.loads(json.dumps(value, default=str))
