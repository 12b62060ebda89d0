"""What can stand behind ``%%cache`` and ``%cache``."""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser

from datastore_lab import units
from datastore_lab.cache.cells import Wish

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES = (".h5", ".hdf5", ".hdf", ".zarr", ".sqlite", ".db")
"""What a path must end in to be seen as a store without ``--store``."""

COMMANDS = {
    "ls": "list what is stored",
    "why": "say why a cell would run again",
    "show": "show the code and the inputs of a result",
    "clear": "delete results",
    "gc": "delete what is too old or too much, and give back the space",
    "size": "say how much is stored",
    "stats": "say what this session has saved",
    "accept": "take a stored result as that of the code as it is now",
}

OPTIONS = {
    "-n": "--name",
    "-i": "--inputs",
    "-x": "--ignore",
    "-f": "--force",
    "-r": "--readonly",
    "-s": "--silent",
    "-V": "--tag",
}
LONG = ("--file", "--ttl", "--min-time", "--no-output", "--copy", "--dry-run", "--store")


class Request(NamedTuple):
    """How a cell is to be cached."""

    place: str | None
    wish: Wish
    force: bool = False
    readonly: bool = False
    silent: bool = False
    ttl: float | None = None
    min_time: float = 0.0
    output: bool = True
    copy: bool = False
    dry_run: bool = False


class Command(NamedTuple):
    """A command of ``%cache``."""

    verb: str
    targets: tuple[str, ...]
    place: str | None
    older: float | None
    max_size: int | None


def read_request(line: str, is_store: Callable[[str], bool]) -> Request:
    """Read the line behind ``%%cache``.

    Parameters
    ----------
    line : str
    is_store : callable
        Tells whether a word names a store.

    Raises
    ------
    UsageError
        Naming the word that makes no sense.

    Examples
    --------
    >>> request = read_request("fit.h5 y,z -x fig --ttl 7d", lambda word: word.endswith(".h5"))
    >>> request.place, request.wish.keep, request.wish.ignore, request.ttl
    ('fit.h5', ('y', 'z'), ('fig',), 604800.0)
    """
    options = _options(line)
    targets, place = list(options.targets), options.store
    if targets and place is None and is_store(targets[0]):
        place = targets.pop(0)
    keep = _names(targets)
    wish = Wish(options.name, keep, options.inputs, options.ignore, tuple(options.file), options.tag)
    return Request(
        place,
        wish,
        options.force,
        options.readonly,
        options.silent,
        options.ttl,
        options.min_time,
        not options.no_output,
        options.copy,
        options.dry_run,
    )


def read_command(line: str) -> Command:
    """Read a line such as ``ls y`` or ``gc --older 30d``.

    Examples
    --------
    >>> read_command("gc --older 1d --max-size 20GB")
    Command(verb='gc', targets=(), place=None, older=86400.0, max_size=20000000000)
    """
    options = _command_parser().parse_intermixed_args(words(line or "ls"))
    if options.verb not in COMMANDS:
        raise UsageError(
            f"%cache: there is no {options.verb!r}; write '%cache y = expression' or one of "
            + ", ".join(f"'%cache {verb}'" for verb in COMMANDS)
        )
    return Command(options.verb, tuple(options.targets), options.store, options.older, options.max_size)


def split_assignment(line: str, transform: Callable[[str], str]) -> tuple[str, str] | None:
    """Split ``-n fit y = f(x)`` into options and assignment; None if the line assigns nothing.

    Examples
    --------
    >>> split_assignment("-n fit y = f(x=2)", str)
    ('-n fit', 'y = f(x=2)')
    >>> split_assignment("gc --older=30d", str) is None
    True
    """
    if "=" not in line:
        return None
    starts = [0, *(found.end() for found in re.finditer(r"\s+", line[: line.index("=") + 1]))]
    for start in starts:
        if _is_assignment(line[start:], transform):
            return line[:start].strip(), line[start:]
    return None


def _is_assignment(text: str, transform: Callable[[str], str]) -> bool:
    if text[:1] in {"-", ""}:
        return False
    try:
        body = ast.parse(transform(text)).body
    except (SyntaxError, ValueError):
        return False
    return len(body) == 1 and isinstance(body[0], (ast.Assign, ast.AugAssign, ast.AnnAssign))


def words(line: str) -> list[str]:
    """Split a line as a shell does."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%%cache: {error} in {line!r}") from error


@functools.lru_cache(maxsize=256)
def _options(line: str) -> Any:
    return _cell_parser().parse_intermixed_args(words(line))


@functools.cache
def _cell_parser() -> Any:
    make: Any = MagicArgumentParser
    parser = make(prog="%%cache", add_help=False)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("-n", "--name")
    parser.add_argument("-i", "--inputs", type=_listed, default=(), action=_Collect)
    parser.add_argument("-x", "--ignore", type=_listed, default=(), action=_Collect)
    parser.add_argument("-f", "--force", action="store_true")
    parser.add_argument("-r", "--readonly", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-V", "--tag")
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--ttl", type=_duration)
    parser.add_argument("--min-time", type=_duration, default=0.0)
    parser.add_argument("--no-output", action="store_true")
    parser.add_argument("--copy", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--store")
    return parser


@functools.cache
def _command_parser() -> Any:
    make: Any = MagicArgumentParser
    parser = make(prog="%cache", add_help=False)
    parser.add_argument("verb")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--older", type=_duration)
    parser.add_argument("--max-size", type=_bytes)
    parser.add_argument("--store")
    return parser


class _Collect(argparse.Action):
    """Puts together what an option that is given several times names."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, _option: Any = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), *values))


def _listed(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not name.isidentifier():
            raise argparse.ArgumentTypeError(f"{name!r} is not the name of a variable")
    return names


def _names(targets: list[str]) -> tuple[str, ...]:
    names = tuple(name for target in targets for name in target.split(",") if name)
    for name in names:
        if not name.isidentifier():
            raise UsageError(
                f"%%cache: {name!r} is neither a variable nor a path that ends in one of "
                f"{', '.join(SUFFIXES)}; give other places with --store"
            )
    return names


def _duration(text: str) -> float:
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _bytes(text: str) -> int:
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
