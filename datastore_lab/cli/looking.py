"""Looking into a store: ``ls`` and ``info``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from datastore_lab.cli.words import as_json, cut, in_memory, parse_key, printable, shape, shown
from datastore_lab.errors import LabError

if TYPE_CHECKING:
    import argparse

    from datastore_lab.keys import Key
    from datastore_lab.records import Stat
    from datastore_lab.store import Store

_PAGE = 200
_LONGEST = 200
_WIDEST = 60


def ls(arguments: argparse.Namespace) -> int:
    """List items, the first of them at once however many there are."""
    from datastore_lab.store import open_store

    with open_store(arguments.path, "r") as store:
        found = _keys(store, parse_key(arguments.key), arguments.depth, arguments.recursive)
        if arguments.json:
            return _print_json(store, found, long=arguments.long)
        if arguments.long:
            return _print_long(store, found)
        return _print_names(found)


def _keys(store: Store, top: Key, depth: int | None, recursive: bool) -> Iterator[Key]:
    if not recursive and depth is None:
        yield from ((*top, name) for name in store.children(top))
        return
    for key in store.keys_below(top):
        if depth is None or len(key) - len(top) <= depth:
            yield key


def _print_names(found: Iterable[Key]) -> int:
    number = 0
    for number, key in enumerate(found, 1):  # noqa: B007 (whether there was any)
        print(shown(key))
    if not number:
        print("(empty)")
    return 0


def _print_json(store: Store, found: Iterable[Key], *, long: bool) -> int:
    damaged = 0
    for key in found:
        described, bad = _described(store, key) if long else ({}, False)
        print(as_json({"key": list(key), **described}))
        damaged += bad
    return 1 if damaged else 0


def _described(store: Store, key: Key) -> tuple[dict[str, Any], bool]:
    try:
        return _summary(store.stat(key)), False
    except LabError as error:
        return {"error": error.code, "message": str(error)}, True


def _summary(stat: Stat) -> dict[str, Any]:
    arrays = {
        name: {"dtype": info.dtype, "shape": list(info.shape), "dims": list(info.dims), "nbytes": info.nbytes}
        for name, info in stat.arrays.items()
    }
    return {"kind": stat.kind, "arrays": arrays, "nbytes": in_memory(stat)}


def _print_long(store: Store, found: Iterable[Key]) -> int:
    """Print a table page by page: its columns are as wide as the first page needs."""
    damaged, widths = 0, [4, 4, 5]
    for number, page in enumerate(_pages(found)):
        rows = [_row(store, key) for key in page]
        if number == 0:
            widths = [max(len(row[column]) for row in [*rows, _HEADER]) for column in range(3)]
            _print_row(_HEADER, widths)
        for row in rows:
            _print_row(row, widths)
        damaged += sum(row[1] == _DAMAGED for row in rows)
    return 1 if damaged else 0


_HEADER = ("item", "kind", "holds", "size")
_DAMAGED = "(damaged)"


def _pages(found: Iterable[Key]) -> Iterator[tuple[Key, ...]]:
    iterator = iter(found)
    while page := tuple(itertools.islice(iterator, _PAGE)):
        yield page


def _print_row(row: tuple[str, ...], widths: list[int]) -> None:
    padded = [text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)]
    print("  ".join(padded).rstrip())


def _row(store: Store, key: Key) -> tuple[str, ...]:
    from datastore_lab.units import format_size

    try:
        stat = store.stat(key)
    except LabError as error:
        return (shown(key), _DAMAGED, cut(printable(str(error)), _WIDEST), "")
    holds = ", ".join(f"{name} {shape(info.shape)} {info.dtype}" for name, info in stat.arrays.items())
    return (shown(key), printable(stat.kind), cut(printable(holds), _WIDEST), format_size(in_memory(stat)))


def info(arguments: argparse.Namespace) -> int:
    """Describe a store, what is known at once first, or one item."""
    from datastore_lab.store import open_store

    with open_store(arguments.path, "r") as store:
        key = parse_key(arguments.key)
        facts = _of_item(store, key) if key else _of_store(store)
        if arguments.json:
            print(as_json(dict(facts)))
            return 0
        for name, value in facts:
            _print_fact(name, value)
    return 0


def _of_store(store: Store) -> Iterator[tuple[str, Any]]:
    from datastore_lab.cli.places import holder, size_on_disk

    yield "place", store.url
    yield "format", store.engine.traits.label
    yield "layout", store.engine.layout
    yield "open for writing by", holder(store.url)
    yield "opens in", list(store.engine.traits.opens_in)
    yield "attributes", store.attrs()
    yield "size on disk", size_on_disk(store.url)
    yield "items", sum(1 for _ in store.keys_below())


def _of_item(store: Store, key: Key) -> Iterator[tuple[str, Any]]:
    stat = store.stat(key)
    yield "key", list(key)
    yield "place", store.url
    yield "kind", stat.kind
    yield "size in memory", in_memory(stat)
    shown = ("dtype", "shape", "dims", "nbytes", "chunks")
    arrays = {name: {field: getattr(info, field) for field in shown} for name, info in stat.arrays.items()}
    yield "arrays", arrays
    yield "attributes", store.attrs(key)
    yield "children", list(store.children(key))


def _print_fact(name: str, value: Any) -> None:
    """Print one fact; what is unknown or empty is left out."""
    for line in _lines(name, value):
        print(line, flush=True)


def _lines(name: str, value: Any) -> Iterator[str]:
    from datastore_lab.units import format_size

    if name == "attributes":
        yield from _attributes(value)
    elif name == "arrays":
        yield from map(_array, value, value.values())
    elif name == "children":
        yield from (f"child {printable(child)}" for child in value)
    elif name == "key":
        yield f"item: {shown(tuple(value))}"
    elif name.startswith("size"):
        yield from () if value is None else (f"{name}: {format_size(value)}",)
    elif value:
        yield f"{name}: {printable(', '.join(value) if isinstance(value, list) else _number(value))}"
    elif value == 0:
        yield f"{name}: 0"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _array(name: str, info: dict[str, Any]) -> str:
    from datastore_lab.units import format_size

    axes = ", ".join(f"{dim}: {length}" for dim, length in zip(info["dims"], info["shape"], strict=True))
    chunks = f", chunks of {shape(info['chunks'])}" if info["chunks"] else ""
    return printable(f"array {name}: {info['dtype']} ({axes}), {format_size(info['nbytes'])}{chunks}")


def _attributes(attrs: dict[str, Any]) -> Iterator[str]:
    from datastore_lab import media

    for name, value in attrs.items():
        text = value if isinstance(value, str) else media.to_json(value)
        yield f"attribute {printable(name)}: {cut(printable(text), _LONGEST)}"
