"""Text for spreadsheets: any table of a store as CSV, with what is known of it in comments or beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import keys, media
from datastore_lab.errors import AlreadyExists, EngineError, LabError, NotStorable
from datastore_lab.formats.tables import Table, as_table

if TYPE_CHECKING:
    from datastore_lab.keys import Key, KeyLike
    from datastore_lab.store import Store

SIDECAR = "-metadata.json"
"""Where CSV on the Web (https://www.w3.org/TR/tabular-data-model/) looks for what is known of a table."""

_METADATA = ("sidecar", "comments", "none")


def export_csv(
    store: Store,
    target: str | os.PathLike[str],
    key: KeyLike = (),
    *,
    metadata: str = "sidecar",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a table of a store as CSV.

    Recordings, arrays of one or two dimensions and more (a column per element of a row), structured arrays,
    pandas tables, and xarray objects whose variables go along one dimension are tables. Numbers are written
    so that they are the same again when they are read, times in ISO 8601, in UTC.

    Parameters
    ----------
    store : Store
    target : path-like
        Not there before, unless `overwrite`; it takes its place when it is complete.
    key : str or sequence of str, optional
        The item; the root if not given.
    metadata : {"sidecar", "comments", "none"}
        Where units and attributes go: into ``<target>-metadata.json``, as CSV on the Web has it, which other
        programs know; into lines that begin with ``#`` before the table, as in
        ``pandas.read_csv(..., comment="#")``; or nowhere.
    overwrite : bool, default False
    progress : callable, optional
        Called with rows done, and all.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    NotStorable
        If the item is no table; the message says why.
    AlreadyExists
        If there is something at the target.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from datastore_lab import open_store
    >>> store = open_store("memory://")
    >>> store.put("trace", np.array([0.5, 1.0]), attrs={"unit": "V"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = export_csv(store, pathlib.Path(folder) / "trace.csv", "trace", metadata="comments")
    ...     print(made.read_text(), end="")
    # item: trace
    # kind: array
    # unit of data: V
    # attribute unit: "V"
    data
    0.5
    1
    """
    if metadata not in _METADATA:
        raise ValueError(f"metadata={metadata!r} is none of {', '.join(_METADATA)}")
    table, place = as_table(store, keys.parse(key)), Path(target)
    sidecar = place.with_name(place.name + SIDECAR) if metadata == "sidecar" else None
    for path in (place, sidecar):
        if path is not None and not overwrite and os.path.lexists(path):
            raise AlreadyExists(f"{str(path)!r} exists already; choose another name", key=str(path))
    head = _comments(table) if metadata == "comments" else b""
    with _replacing(place) as file:
        file.write(head + _header(table))
        for done, lines in table.blocks():
            file.write(lines)
            if progress is not None:
                progress(done, table.rows)
    if sidecar is not None:
        with _replacing(sidecar) as file:
            file.write(_described(table, place.name, store.url))
    return place


def exportable(store: Store) -> tuple[list[Key], list[tuple[Key, str]]]:
    """List the items of a store that are tables, and those that are not, with the reason."""
    tables, others = [], []
    for key in store.keys_below():
        try:
            as_table(store, key)
            tables.append(key)
        except NotStorable as error:
            others.append((key, error.message))
    return tables, others


@contextlib.contextmanager
def _replacing(place: Path) -> Iterator[Any]:
    """Write a file that takes its place when it is complete."""
    try:
        with media.atomic_file(place) as file:
            yield file
    except OSError as error:
        if isinstance(error, LabError):
            raise
        raise EngineError(f"{str(place)!r} can't be written: {error}", key=str(place)) from error


def _header(table: Table) -> bytes:
    from datastore_lab.streams.text.sidecar import quoted

    return ",".join(quoted(column.heading) for column in table.columns).encode() + b"\n"


def _comments(table: Table) -> bytes:
    """Write what is known of a table as lines; JSON keeps each on one."""
    notes = table.notes
    item = keys.show(tuple(notes["item"]))
    lines = [
        f"item: {item if isinstance(item, str) else media.to_json(notes['item'])}",
        f"kind: {notes['kind']}",
    ]
    units = {column.array: column.unit for column in table.columns if column.unit is not None}
    lines += [f"unit of {name}: {unit}" for name, unit in units.items()]
    lines += [f"attribute {name}: {media.to_json(value)}" for name, value in notes["attributes"].items()]
    lines += [
        f"{what} {name}: {media.to_json(value)}"
        for what, several in (
            ("attributes of", notes.get("array attributes", {})),
            ("coordinate", notes.get("coordinates", {})),
        )
        for name, value in several.items()
    ]
    return "".join(f"# {' '.join(line.splitlines())}\n" for line in lines).encode()


def _described(table: Table, name: str, url: str) -> bytes:
    columns = [
        {
            "titles": column.heading,
            "datatype": column.datatype,
            **({"schema:unitText": column.unit} if column.unit is not None else {}),
        }
        for column in table.columns
    ]
    content = {
        "@context": "http://www.w3.org/ns/csvw",
        "url": name,
        "dc:source": url,
        "tableSchema": {"columns": columns},
        "notes": [{"rows": table.rows, **table.notes}],
    }
    return f"{media.to_json(content, indent=1)}\n".encode()
