"""The command line: look into stores, compare formats, take the tour."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import __version__
from datastore_lab.errors import LabError
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    from datastore_lab.records import Stat
    from datastore_lab.store import Store

_SHOWN = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``datastore-lab``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process if not given.

    Returns
    -------
    int
        0 if all went well, 1 if what was asked for failed, 2 for an error that says what to do.
    """
    arguments = _parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # (a name need not fit the terminal)
    try:
        return _run(arguments)
    except LabError as error:
        if arguments.debug:
            raise
        print(f"datastore-lab: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `datastore-lab ls x.h5 | head`
        _silence()
        return 0
    except OSError as error:
        if arguments.debug:
            raise
        _silence()
        print(f"datastore-lab: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # what a shell says of a program that Ctrl-C ended


def _run(arguments: argparse.Namespace) -> int:
    code = int(arguments.command(arguments))
    print(end="", flush=True)  # what can't be written is to be said here, not while Python ends
    return code


def _silence() -> None:
    """Let what is still to be written go nowhere, so that it can't fail once more while Python ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="datastore-lab", description="One bench from device to figure.")
    parser.add_argument("--version", action="version", version=f"datastore-lab {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(required=True, metavar="command")

    tour = commands.add_parser("tour", help="open the tour in JupyterLab")
    tour.add_argument("--headless", action="store_true", help="execute it here and print what it made")
    tour.add_argument("--no-browser", action="store_true", help="start JupyterLab without opening a browser")
    tour.add_argument("--folder", type=Path, default=Path("tour_data"), help="where it works (%(default)s)")
    tour.set_defaults(command=_tour)

    ls = commands.add_parser("ls", help="list the items of a store")
    ls.add_argument("path")
    ls.set_defaults(command=_ls)

    info = commands.add_parser("info", help="describe a store or one item, without reading its data")
    info.add_argument("path")
    info.add_argument("key", nargs="?", help="as ls shows it")
    info.set_defaults(command=_info)

    formats = commands.add_parser("formats", help="compare the formats")
    formats.set_defaults(command=_formats)
    return parser


def _tour(arguments: argparse.Namespace) -> int:
    from datastore_lab import tour

    if arguments.headless:
        return tour.execute(arguments.folder)
    return tour.open_in_lab(arguments.folder, browser=not arguments.no_browser)


def _formats(_arguments: argparse.Namespace) -> int:
    from datastore_lab.formats import format_table

    print(format_table())
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    from datastore_lab.formats.grid import Grid
    from datastore_lab.store import open_store

    with open_store(arguments.path, "r") as store:
        rows = [_listed(store, key) for key in store.keys_below()]
    print(Grid(("item", "kind", "holds", "size"), rows) if rows else "(empty)")
    return 0


def _listed(store: Store, key: Key) -> tuple[str, ...]:
    from datastore_lab.units import format_size

    stat = store.stat(key)
    holds = ", ".join(f"{name} {_shape(info.shape)} {info.dtype}" for name, info in stat.arrays.items())
    return (_shown(key), printable(stat.kind), _cut(printable(holds), 60), format_size(_nbytes(stat)))


def _info(arguments: argparse.Namespace) -> int:
    from datastore_lab.store import open_store

    with open_store(arguments.path, "r") as store:
        lines = _of_store(store) if arguments.key is None else _of_item(store, _key(arguments.key))
        for line in lines:
            print(line)
    return 0


def _of_store(store: Store) -> Iterator[str]:
    from datastore_lab.units import format_size

    stats = [store.stat(key) for key in store.keys_below()]
    yield printable(store.url)
    yield f"format: {store.engine.traits.label}"
    yield f"items: {len(stats)}, {format_size(sum(map(_nbytes, stats)))} in memory"
    yield f"opens in: {', '.join(store.engine.traits.opens_in)}"
    yield from _attributes(store.attrs())


def _of_item(store: Store, key: Key) -> Iterator[str]:
    from datastore_lab.units import format_size

    stat = store.stat(key)
    yield f"{_shown(key)} in {printable(store.url)}"
    yield f"kind: {printable(stat.kind)}"
    for name, info in stat.arrays.items():
        axes = ", ".join(f"{dim}: {length}" for dim, length in zip(info.dims, info.shape, strict=True))
        chunks = f", chunks of {_shape(info.chunks)}" if info.chunks else ""
        yield printable(f"array {name}: {info.dtype} ({axes}), {format_size(info.nbytes)}{chunks}")
    yield from _attributes(store.attrs(key))
    for name in store.children(key):
        yield printable(f"child {name}")


def _attributes(attrs: dict[str, Any]) -> Iterator[str]:
    from datastore_lab import media

    for name, value in attrs.items():
        text = value if isinstance(value, str) else media.to_json(value)
        yield f"attribute {printable(name)}: {_cut(printable(text), _SHOWN)}"


def _nbytes(stat: Stat) -> int:
    return sum(info.nbytes for info in stat.arrays.values())


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) if shape else "scalar"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _shown(key: Key) -> str:
    """Write a key as `_key` reads it: a path, or a JSON list where no path can say it."""
    path = show(key)
    return printable(path) if isinstance(path, str) else json.dumps(path)


def _key(text: str) -> Key:
    from datastore_lab import keys

    try:
        parts = json.loads(text) if text.startswith("[") else None
    except ValueError:
        parts = None
    return keys.parse(text) if parts is None else keys.parse(parts)


def printable(text: str) -> str:
    r"""Escape what would steer the terminal: names come out of files.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


if __name__ == "__main__":
    sys.exit(main())
