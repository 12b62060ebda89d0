"""The tree browser: a widget that asks this process for rows and looks, page by page."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from datastore_lab.errors import LabError
from datastore_lab.notebook import fallback, preview
from datastore_lab.notebook.source import Source
from datastore_lab.notebook.worker import Worker, off_main
from datastore_lab.store import Store, open_store

STATIC = Path(__file__).parent / "static"
_LARGEST_PAGE = 200


class Browser(anywidget.AnyWidget):
    """A store as a tree; use `datastore_lab.browse` to get one.

    Rows are read when they come into sight, and payloads only for the look at the selected item, within
    `preview.BUDGET` bytes. All of it happens in a worker thread.

    Parameters
    ----------
    store : Store
    label : str, optional
        Heading; by default the address of the store.
    owned : bool, default False
        Close the store with the widget.

    Attributes
    ----------
    selected : tuple of str
        Key of the item that was last selected in the page, with the array's name last where it is one.
    """

    _esm = STATIC / "tree.js"
    _css = STATIC / "tree.css"
    label = traitlets.Unicode().tag(sync=True)
    badges = traitlets.List(traitlets.Unicode()).tag(sync=True)
    height = traitlets.Int(300).tag(sync=True)
    first = traitlets.Dict().tag(sync=True)

    def __init__(self, store: Store, *, label: str | None = None, owned: bool = False) -> None:
        self.store = store
        self.selected: tuple[str, ...] = ()
        self._source = Source(store)
        self._owned = owned
        self._wanted = 0
        self._lock = threading.Lock()
        self._worker = Worker("datastore-lab-browser")
        badges = [] if store.writable else ["read only"]
        super().__init__(label=label or _label(store), badges=badges, first=self._first_page())
        self.on_msg(self._enqueue)
        off_main(self)

    def close(self) -> None:
        """Let go of the page, the thread, and the store if it was opened for this browser."""
        self._worker.close()
        super().close()
        if self._owned:
            self.store.close()

    def to_html(self) -> str:
        """Give the first rows as HTML without script, for pages without a kernel."""
        if self.first.get("error"):
            return fallback.tree_html(self.label, [*self.badges, self.first["error"]], 0, [])
        return fallback.tree_html(self.label, self.badges, self.first["total"], self.first["rows"])

    def __repr__(self) -> str:
        return f"<Browser of {self.label}, {fallback.count(self.first.get('total', 0), 'item')}>"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "text/plain": repr(self), "text/html": self.to_html()}, metadata

    # -- messages -----------------------------------------------------------------------------------

    def _enqueue(self, _widget: Any, message: Any, _buffers: Any) -> None:
        if not isinstance(message, dict):
            return
        if message.get("op") == "preview":
            with self._lock:
                self._wanted = max(self._wanted, int(message["req"]))
        self._worker.submit(lambda: self._answer(message))

    def _answer(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {name: message.get(name) for name in ("op", "req", "page")}
        buffers: list[Any] = []
        try:
            key = tuple(str(part) for part in message.get("path", []))
            if message["op"] == "children":
                reply.update(self._page(key, int(message["start"]), int(message["count"])))
            elif message["op"] == "preview" and int(message["req"]) >= self._wanted:
                item, buffers = self._preview(key, message.get("array"))
                reply.update(item)
            else:
                return  # an older wish: the page has moved on
        except Exception as error:  # shown in the page, where the question came from
            reply["error"] = _say(error)
        self.send(reply, buffers)

    def _page(self, key: tuple[str, ...], start: int, count: int) -> dict[str, Any]:
        start, count = max(0, start), min(_LARGEST_PAGE, max(1, count))
        total, rows = self._source.page(key, start, count)
        return {"start": start, "total": total, "rows": rows}

    def _preview(self, key: tuple[str, ...], array: Any) -> tuple[dict[str, Any], list[Any]]:
        name = None if array is None else str(array)
        self.selected = key if name is None else (*key, name)
        item, arrays = preview.describe(self.store, key, name)
        return item, [values.data.cast("B") for values in arrays]

    def _first_page(self) -> dict[str, Any]:
        """Read the rows that the page paints before it has asked, and that stay in a saved notebook."""
        try:
            return self._page((), 0, fallback.ROWS)
        except Exception as error:  # shown in the page
            return {"start": 0, "total": 0, "rows": [], "error": _say(error)}


def browse(target: Any) -> Browser:
    """Show a store as a tree; see `datastore_lab.notebook.browse`."""
    if isinstance(target, str | os.PathLike):
        return Browser(open_store(target, "r"), owned=True)
    store = store_of(target)
    if store is None:
        raise TypeError(
            f"there is no store behind {type(target).__name__} to browse; give a Store, a workspace, a run, "
            "or the path of a file"
        )
    return Browser(store, label=None if isinstance(target, Store) else _label_of(target, store))


def store_of(target: Any) -> Store | None:
    """Give the store that an object is a view of, or None."""
    if isinstance(target, Store):
        return target
    for name in ("backing", "store"):
        found = getattr(target, name, None)
        if isinstance(found, Store):
            return found
    return None


def _label(store: Store) -> str:
    """Give the address of a store, as a relative path where it lies in the working folder."""
    place = Path(store.url)
    here = Path.cwd()
    address = str(place.relative_to(here)) if place.is_relative_to(here) else store.url
    return "/".join([address, *store.prefix])


def _label_of(target: Any, store: Store) -> str:
    name = getattr(target, "name", None)
    return f"{name} ({_label(store)})" if name else _label(store)


def _say(error: Exception) -> str:
    message = str(error) or type(error).__name__
    return message if isinstance(error, LabError) else f"{type(error).__name__}: {message}"
