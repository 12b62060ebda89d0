"""The commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from datastore_lab import __version__
from datastore_lab.cli import checking, choosing, looking, moving, others, studies

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_STATUS = """exit status:
  0  all is well
  1  problems were found, or something was left out
  2  an error; the message says what to do
  130  interrupted (Ctrl-C)
"""

_PATH = "a file or folder, or a URL such as postgresql+psycopg://user@host/lab or s3://bucket/lab.zarr"
_KEY = "only what is at or below this item, written as ls shows it; also as PATH::KEY"
_SIDE = "a path or URL, and a group or item of it after '::', as in lab.h5::run/7"

_COPY = """Copy everything from one store into another, whatever their formats: lab.h5 to lab.zarr, or a group
to another place. At the end both sides are read again and compared, bit by bit.

Interrupted at any moment, the same command goes on where it stopped. An item that is being copied lies under
the reserved name lab_copying, so that no half item is ever taken for a whole one.

Items that are in the target already are kept, and reported if they differ."""

_CONVERT = """Copy a whole store to a new one of another format, which its suffix chooses. The target must not
exist, unless an interrupted conversion is to go on with --resume. At the end both are compared, bit by
bit."""

_EXPORT = """Write an item of a store as CSV: a recording, an array, a table of pandas, or an xarray object
whose variables go along one dimension. With a folder as the target, all tables are written; what is no table
is listed."""

_FORMATS = """Compare what the formats can do. With any of --kind to --safety, recommend one instead, with
what speaks for and against it. With --measure, data of your own is written in every format before, to see
how fast and how small each is on this computer; what is written is removed again."""

_ARCHIVE = """Pack the folder of an experiment into a ZIP archive, FOLDER.zip if no other is given: every file
once under its own path, read again before it counts. With --restore, unpack one into a new folder."""

_CONSOLIDATE = """Bring participants, tasks and trials into one HDF5 file, FOLDER.hdf5 if no other is given,
or into Zarr. Done again, only tasks with new trials are read; what else is in the file stays."""

_VERIFY = """Read everything, and list what is not as it was written: every flipped bit is found. Problems are
listed as they are found. Nothing is changed."""

_REPAIR = """Mend what can be mended without guessing, and say what was done and what could not be. Nothing
that can still be read is given up. What is damaged for good can be left behind by copying the rest to a
new store: datastore-lab copy --skip-damaged."""


_RECOVER = """Bring a store back to order after its writer was killed, the power failed, or a disk was full:
commits are ended or taken back, Parquet files made of their spools, and files that another program left open
get what they lack, in a copy that takes their place only when all of it has been read."""


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="datastore-lab",
        description="One bench from device to figure.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"datastore-lab {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(required=True, metavar="command")
    kept = (_ls, _info, _verify, _repair, _recover, _compact, _copy, _convert, _export)
    for add in (*kept, _archive, _consolidate, _formats, _tour):
        add(commands)
    return parser


def _command(
    commands: _Commands, name: str, summary: str, run: Callable[[argparse.Namespace], int], text: str = ""
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name,
        help=summary,
        description=text or f"{summary[0].upper()}{summary[1:]}.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(command=run)
    return made


def _json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"for scripts: {what}")


def _quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, and no summary")


def _ls(commands: _Commands) -> None:
    ls = _command(commands, "ls", "list the items of a store", looking.ls)
    ls.add_argument("path", help=_PATH)
    ls.add_argument("key", nargs="?", help="list what is below this item")
    ls.add_argument("-l", "--long", action="store_true", help="also kind, arrays and size in memory")
    ls.add_argument("-r", "--recursive", action="store_true", help="all levels; only items, no groups")
    ls.add_argument("--depth", type=_count, metavar="N", help="as -r, but at most N levels down")
    _json(ls, "one JSON object per line")


def _info(commands: _Commands) -> None:
    text = "Describe a store, or one item of it, without reading its data."
    info = _command(commands, "info", "describe a store or one item", looking.info, text)
    info.add_argument("path", help=_PATH)
    info.add_argument("key", nargs="?", help="an item or group, as ls shows it")
    _json(info, "one JSON object")


def _verify(commands: _Commands) -> None:
    verify = _command(
        commands, "verify", "read everything, and list what is damaged", checking.verify, _VERIFY
    )
    verify.add_argument("path", help=_PATH)
    verify.add_argument("key", nargs="?", help=_KEY)
    _quiet(verify)
    _json(verify, "a JSON object per problem, and one with the counts at the end")


def _repair(commands: _Commands) -> None:
    repair = _command(commands, "repair", "mend what can be mended", checking.repair, _REPAIR)
    repair.add_argument("path", help=_PATH)
    repair.add_argument("key", nargs="?", help=_KEY)
    repair.add_argument("--dry-run", action="store_true", help="only list what is wrong; change nothing")
    repair.add_argument(
        "--accept",
        action="store_true",
        help="take what can be read but was changed, on purpose, by another program, and seal it anew",
    )
    repair.add_argument("-y", "--yes", action="store_true", help="do not ask before --accept")


def _recover(commands: _Commands) -> None:
    recover = _command(
        commands, "recover", "bring back what a stopped program left", checking.recover, _RECOVER
    )
    recover.add_argument("path", help="a file or folder")


def _compact(commands: _Commands) -> None:
    compact = _command(commands, "compact", "give back the space of what was deleted", checking.compact)
    compact.add_argument("path", help=_PATH)
    compact.add_argument(
        "--above",
        type=checking.share,
        metavar="SHARE",
        help="only if more than this share of the place, such as 30%%, is taken up by no array (an estimate)",
    )
    _quiet(compact)


def _moving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out what can't be read, list it, and end with 1"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not compare both sides at the end")
    _quiet(parser)


def _copy(commands: _Commands) -> None:
    copy = _command(commands, "copy", "copy a store or a group into another", moving.copy, _COPY)
    copy.add_argument("source", help=_SIDE)
    copy.add_argument("target", help="the same; made if it is not there, in the format of its suffix")
    copy.add_argument("--overwrite", action="store_true", help="replace items of the target that differ")
    _moving(copy)


def _convert(commands: _Commands) -> None:
    convert = _command(
        commands, "convert", "copy a store to a new one of another format", moving.convert, _CONVERT
    )
    convert.add_argument("source", help=_PATH)
    convert.add_argument("target", help="a new file, folder or URL")
    convert.add_argument("--resume", action="store_true", help="go on with a conversion that was interrupted")
    _moving(convert)


def _export(commands: _Commands) -> None:
    export = _command(commands, "export", "write tables as CSV", choosing.export, _EXPORT)
    export.add_argument("source", help=_SIDE)
    export.add_argument("target", help="a new .csv file; or a folder, for all tables")
    export.add_argument(
        "--metadata",
        choices=("sidecar", "comments", "none"),
        default="sidecar",
        help="where units and attributes go: beside it as CSV on the Web has it, into lines that begin with "
        "'#', or nowhere (%(default)s)",
    )
    export.add_argument("--overwrite", action="store_true", help="replace files that are there")
    _quiet(export)


def _archive(commands: _Commands) -> None:
    archive = _command(
        commands, "archive", "pack the folder of an experiment, or unpack it", studies.archive, _ARCHIVE
    )
    archive.add_argument("path", help="the folder; with --restore the archive")
    archive.add_argument("target", nargs="?", help="the archive; with --restore the new folder")
    archive.add_argument("--restore", action="store_true", help="unpack")
    _quiet(archive)


def _consolidate(commands: _Commands) -> None:
    consolidate = _command(
        commands,
        "consolidate",
        "bring the folder of an experiment into one file",
        studies.consolidate,
        _CONSOLIDATE,
    )
    consolidate.add_argument("path", help="the folder")
    consolidate.add_argument("target", nargs="?", help="a file, or a folder that ends in .zarr")
    consolidate.add_argument("--zarr", action="store_true", help="into a folder of Zarr")
    _quiet(consolidate)


def _formats(commands: _Commands) -> None:
    formats = _command(
        commands, "formats", "compare the formats, or recommend one", choosing.formats, _FORMATS
    )
    formats.add_argument("--kind", help="what is recorded: images, series or nested")
    formats.add_argument("--dimensions", type=_count, metavar="N", help="axes, the sample's included")
    formats.add_argument("--rate", help="such as '30 fps', '10 kHz' or '400 MB/s'")
    formats.add_argument("--duration", help="such as '2 h'")
    formats.add_argument(
        "--reader", action="append", help="a program that must open it; may be given several times"
    )
    formats.add_argument("--cloud", action="store_true", help="it will lie in object storage")
    formats.add_argument("--compression", action="store_true", help="it must be small")
    formats.add_argument("--safety", action="store_true", help="it must survive the loss of one file")
    formats.add_argument(
        "--measure", metavar="PATH::KEY", help="write this item in every format, here and now"
    )
    formats.add_argument("--folder", default=".", help="on the disk that is measured (%(default)s)")
    formats.add_argument("--repeats", type=_count, default=5, metavar="N", help="rounds (%(default)s)")
    _json(formats, "one JSON object per answer")
    _quiet(formats)


def _tour(commands: _Commands) -> None:
    tour = _command(commands, "tour", "open the tour in JupyterLab", others.tour)
    tour.add_argument("--headless", action="store_true", help="execute it here and print what it made")
    tour.add_argument("--no-browser", action="store_true", help="start JupyterLab without opening a browser")
    tour.add_argument("--folder", type=Path, default=Path("tour_data"), help="where it works (%(default)s)")


def _count(text: str) -> Any:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
